"""The door: every request passes here before its view. Who is it, may it do this, may it do it to this topic."""

from collections.abc import Set as AbstractSet

from flask import Request

from api.access import NOBODY, Caller, Failures, bearer, find_token, forbidden, unauthorized
from api.problems import Problem
from api.process import Process
from api.topic_state import no_topic


def admit(
    request: Request,
    scopes: AbstractSet[str] | None,
    process: Process,
    failures: Failures,
    *,
    all_topics: bool,
) -> Caller:
    """Who sends the request, if one of the scopes is its; `scopes` None: anybody. Raises Problem (401, 403, 404, 429).

    `all_topics`: the operation concerns every topic, so a token for some is not enough.
    """
    if scopes is None or process.settings.auth == "none":
        return NOBODY
    token = bearer(request)
    if token is None:
        raise unauthorized()
    database = process.database
    with database.ask() as connection:
        row = find_token(connection, token, database.clock)
    if row is None:
        if failures.add(request.remote_addr or ""):
            raise Problem(
                "too-many-failures",
                429,
                "Too many requests with a bad token from this address: wait a minute.",
            )
        raise unauthorized()
    caller = Caller(row.name, frozenset(row.scopes), row.topics)
    if not caller.scopes & scopes:
        raise forbidden(scopes)
    if all_topics and caller.topics is not None:
        raise Problem("forbidden", 403, "This concerns every topic; the token is for some only.")
    topic = (request.view_args or {}).get("topic")
    if topic is not None and not caller.sees(topic):
        raise no_topic(topic)
    return caller
