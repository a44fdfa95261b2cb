"""Refusals as problem details (RFC 9457), the only way this API says no.

A refusal is raised as `Problem` from any depth; the transaction around it rolls back. Nothing here knows a view.
"""

from http import HTTPStatus
from typing import Any

import orjson
from flask import Flask, Response
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException

from api.database import said_by
from api.times import TimeError

TITLES = {
    "behind": "Objects of the next commits are gone",
    "body-invalid": "The body cannot be read",
    "claimed": "Another one has claimed it",
    "commit-id-reused": "Another commit has this id",
    "confirm-needed": "The change needs `confirm`",
    "cursor-moved": "A cursor stands elsewhere",
    "cursor-ahead": "The sequence is above the head",
    "database-away": "The database does not answer",
    "epoch-moved": "The topic lives in another epoch",
    "file-not-live": "A file is not live any more",
    "lease-held": "Another one holds the lease",
    "forbidden": "The token may not do this",
    "law-broken": "The commit breaks a law of the ledger",
    "method-not-allowed": "The path knows no such method",
    "not-expired": "A file may not expire yet",
    "not-covered": "Not all that Kafka had is in the lake yet",
    "not-sweepable": "An object may not be deleted yet",
    "not-found": "Not found",
    "not-json": "The body must be application/json",
    "not-ready": "Not ready",
    "nothing-to-reset": "There is nothing to reset",
    "object-too-old": "An object is too old to be entered",
    "position-moved": "The position moved",
    "request-invalid": "The request is not what the contract says",
    "rule-version-old": "The commit was made under old rules",
    "schema-moved": "The schema moved",
    "settings-invalid": "A setting is not valid",
    "settings-moved": "The settings moved",
    "snapshot": "The history asked for is gone",
    "token-exists": "A token has this name",
    "too-many-failures": "Too many bad tokens",
    "unauthorized": "A token is needed",
    "cannot-sign": "The API cannot sign URLs",
    "too-large": "The body is too large",
    "topic-exists": "The topic exists",
}


RETRY_AFTER = {429: "60", 503: "1"}


class Problem(Exception):
    """One refusal: `name` is the last part of its type, `fields` what a program needs to go on."""

    def __init__(self, name: str, status: int, detail: str, **fields: Any) -> None:
        super().__init__(detail)
        self.name = name
        self.status = status
        self.detail = detail
        self.fields = fields

    def body(self) -> dict[str, Any]:
        return {
            "type": f"/problems/{self.name}",
            "title": TITLES[self.name],
            "status": self.status,
            "detail": self.detail,
            **self.fields,
        }


def answer(body: Any, status: int = 200) -> Response:
    """A JSON answer; orjson because feed pages are large and this is half of their cost."""
    return Response(orjson.dumps(body), status=status, mimetype="application/json")


def refusal(problem: Problem) -> Response:
    response = Response(
        orjson.dumps(problem.body()), status=problem.status, mimetype="application/problem+json"
    )
    if problem.status in RETRY_AFTER:
        response.headers["Retry-After"] = RETRY_AFTER[problem.status]
    if problem.status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def database_away(error: DBAPIError | PoolTimeoutError) -> Problem:
    """What a caller is told when the database fails: to come again. The driver's words go to the log only."""
    what = "no connection came free in time" if isinstance(error, PoolTimeoutError) else "a statement failed"
    return Problem(
        "database-away",
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"The database does not answer ({what}). Nothing was changed, or a commit whose answer was lost was taken: "
        "send the same request again.",
    )


def _from_http(error: HTTPException) -> Problem:
    code = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    names = {404: "not-found", 405: "method-not-allowed", 413: "too-large", 415: "not-json"}
    return Problem(
        names.get(code, "body-invalid"), code, error.description or "The request cannot be served."
    )


def register(app: Flask) -> None:
    """Hangs the translation of exceptions into problem details on the application."""

    @app.errorhandler(Problem)
    def _problem(problem: Problem) -> Response:
        return refusal(problem)

    @app.errorhandler(TimeError)
    def _time(error: TimeError) -> Response:
        return refusal(Problem("request-invalid", 400, str(error), errors=[str(error)]))

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        response = refusal(_from_http(error))
        response.headers.extend(
            {name: value for name, value in error.get_headers() if name in ("Allow", "WWW-Authenticate")}
        )
        return response

    @app.errorhandler(DataError)
    def _value(error: DataError) -> Response:
        # A zero byte in a text, say: the contract lets it through, PostgreSQL does not.
        app.logger.warning("a value cannot be stored: %s", error.orig)
        said = "A value of the request cannot be stored (a zero byte in a text?)."
        return refusal(Problem("request-invalid", 400, said, errors=[said]))

    @app.errorhandler(OperationalError)
    @app.errorhandler(InterfaceError)
    @app.errorhandler(PoolTimeoutError)
    def _database(error: DBAPIError | PoolTimeoutError) -> Response:
        app.logger.error("the database failed: %s", said_by(error))
        return refusal(database_away(error))
