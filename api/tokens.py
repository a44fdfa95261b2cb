"""Tokens: making, rotating, revoking and listing them, over HTTP and for the command line.

A token is 256 random bits; only its SHA-256 is stored, so it is shown once. The first one is made on the command line
by whoever has the database.
"""

import secrets
from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection, insert, select, update

from api.access import SCOPES, caller, digest
from api.audit import note
from api.database import Database, make_engine
from api.migrate import upgrade_at_start
from api.pages import page_state, page_token
from api.patterns import wrong_patterns
from api.problems import Problem, answer
from api.process import body, here, query
from api.settings import ApiSettings
from api.tables import Record, tokens
from api.times import format_time, format_time_or_none, parse_time
from api.units import parse_duration

blueprint = Blueprint("tokens", __name__)

PREFIX = "tukang_"


class TokenError(Exception):
    """A token cannot be made or revoked; the message says why."""


def new_token() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def token_json(row: Record) -> dict[str, Any]:
    """A row of `tokens` as the contract's Token: never the token itself."""
    return {
        "name": row.name,
        "scopes": row.scopes,
        "topics": row.topics,
        "created_at": format_time(row.created_us),
        "expires_at": format_time_or_none(row.expires_us),
        "revoked_at": format_time_or_none(row.revoked_us),
    }


def make_token(
    connection: Connection,
    name: str,
    scopes: Sequence[str],
    topics: Sequence[str] | None,
    expires_us: int | None,
    now_us: int,
    who: str,
) -> str | None:
    """A new token's text; None when a token that is not revoked has the name. A revoked name can be used again."""
    token = new_token()
    values = {
        "hash": digest(token),
        "former_hash": None,
        "former_until_us": None,
        "scopes": sorted(set(scopes)),
        "topics": None if topics is None else sorted(set(topics)),
        "created_us": now_us,
        "expires_us": expires_us,
        "revoked_us": None,
    }
    row = connection.execute(select(tokens).where(tokens.c.name == name).with_for_update()).one_or_none()
    if row is not None and row.revoked_us is None and (row.expires_us is None or row.expires_us > now_us):
        return None
    if row is None:
        connection.execute(insert(tokens).values(name=name, **values))
    else:
        connection.execute(update(tokens).where(tokens.c.id == row.id).values(**values))
    made = connection.execute(select(tokens).where(tokens.c.name == name)).one()
    note(connection, now_us, "create_token", target=name, after=token_json(made), who=who)
    return token


def revoke_token(connection: Connection, name: str, now_us: int, who: str) -> Record | None:
    """Ends a token at once. Its row; None when there is none."""
    row = connection.execute(select(tokens).where(tokens.c.name == name).with_for_update()).one_or_none()
    if row is not None and row.revoked_us is None:
        connection.execute(update(tokens).where(tokens.c.id == row.id).values(revoked_us=now_us))
        note(connection, now_us, "revoke_token", target=name, before=token_json(row), who=who)
    return row


def renew_token(
    connection: Connection, name: str, overlap_us: int, now_us: int, who: str
) -> tuple[Record, str] | None:
    """A new text for a token; the old one works until the overlap ends. The row as it was; None when there is none."""
    row = connection.execute(select(tokens).where(tokens.c.name == name).with_for_update()).one_or_none()
    if row is None or row.revoked_us is not None:
        return None
    token = new_token()
    connection.execute(
        update(tokens)
        .where(tokens.c.id == row.id)
        .values(hash=digest(token), former_hash=row.hash, former_until_us=now_us + overlap_us)
    )
    after = {"overlap_seconds": overlap_us // 1_000_000}
    note(connection, now_us, "rotate_token", target=name, after=after, who=who)
    return row, token


# The command line


def create(
    settings: ApiSettings,
    name: str,
    scopes: Sequence[str],
    topics: Sequence[str] | None = None,
    expires_at: str | None = None,
) -> str:
    """Makes a token in the settings' database and gives its text. Raises TokenError, TimeError, SettingsError."""
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise TokenError(f"scopes are {', '.join(SCOPES)}, not {', '.join(unknown) or 'none'}")
    wrong = wrong_patterns(topics or ())
    if wrong:
        raise TokenError(wrong[0])
    expires_us = None if expires_at is None else parse_time(expires_at)
    database = _open(settings)
    try:
        with database.write() as connection:
            now_us = database.clock(connection)
            token = make_token(connection, name, scopes, topics, expires_us, now_us, "command line")
    finally:
        database.dispose()
    if token is None:
        raise TokenError(f"a token {name} exists: revoke it first, or choose another name")
    return token


def rotate(settings: ApiSettings, name: str, overlap: str) -> str:
    """A new text for a token; the old one works for the duration `overlap`. Raises TokenError, UnitError."""
    overlap_us = parse_duration(overlap)
    database = _open(settings)
    try:
        with database.write() as connection:
            renewed = renew_token(connection, name, overlap_us, database.clock(connection), "command line")
    finally:
        database.dispose()
    if renewed is None:
        raise TokenError(f"there is no token {name}")
    return renewed[1]


def revoke(settings: ApiSettings, name: str) -> None:
    """Revokes a token in the settings' database. Raises TokenError when there is none."""
    database = _open(settings)
    try:
        with database.write() as connection:
            if revoke_token(connection, name, database.clock(connection), "command line") is None:
                raise TokenError(f"there is no token {name}")
    finally:
        database.dispose()


def list_all(settings: ApiSettings) -> list[dict[str, Any]]:
    """All tokens of the settings' database, by name, as in the contract."""
    database = _open(settings)
    try:
        with database.read() as connection:
            return [token_json(row) for row in connection.execute(select(tokens).order_by(tokens.c.name))]
    finally:
        database.dispose()


def _open(settings: ApiSettings) -> Database:
    database = Database(make_engine(settings.database, 1))
    upgrade_at_start(database)
    return database


# HTTP


@blueprint.get("/v1/tokens")
def list_tokens() -> Response:
    asked = query()
    limit = asked["limit"]
    state = page_state(asked.get("page"), name=str)
    wanted = select(tokens).order_by(tokens.c.name).limit(limit + 1)
    if state:
        wanted = wanted.where(tokens.c.name > state["name"])
    with here().database.read() as connection:
        rows = connection.execute(wanted).all()
    return answer(
        {
            "tokens": [token_json(row) for row in rows[:limit]],
            "next_page": page_token(name=rows[limit - 1].name) if len(rows) > limit else None,
        }
    )


@blueprint.post("/v1/tokens")
def create_token() -> Response:
    asked = body()
    wrong = wrong_patterns(asked.get("topics") or ())
    if wrong:
        raise Problem(
            "request-invalid", 400, f"topics: {wrong[0]}", errors=[f"topics: {text}" for text in wrong]
        )
    expires_at = asked.get("expires_at")
    database = here().database
    with database.write() as connection:
        token = make_token(
            connection,
            asked["name"],
            asked["scopes"],
            asked.get("topics"),
            None if expires_at is None else parse_time(expires_at),
            database.clock(connection),
            caller().name,
        )
        if token is None:
            raise Problem(
                "token-exists", 409, f"A token {asked['name']} exists: revoke it first, or rotate it."
            )
        made = connection.execute(select(tokens).where(tokens.c.name == asked["name"])).one()
    return answer(token_json(made) | {"token": token}, 201)


@blueprint.post("/v1/tokens/<name>/rotate")
def rotate_token(name: str) -> Response:
    database = here().database
    overlap_us = int(body()["overlap_seconds"]) * 1_000_000
    with database.write() as connection:
        renewed = renew_token(connection, name, overlap_us, database.clock(connection), caller().name)
        if renewed is None:
            raise Problem("not-found", 404, f"There is no token {name}.")
    row, token = renewed
    return answer(token_json(row) | {"token": token})


@blueprint.delete("/v1/tokens/<name>")
def delete_token(name: str) -> Response:
    database = here().database
    with database.write() as connection:
        if revoke_token(connection, name, database.clock(connection), caller().name) is None:
            raise Problem("not-found", 404, f"There is no token {name}.")
    return Response(status=204)
