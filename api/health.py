"""Whether the process answers, and whether it can serve."""

from flask import Blueprint, Response

from api.migrate import SchemaError, check
from api.problems import Problem, answer
from api.process import here

blueprint = Blueprint("health", __name__)


@blueprint.get("/health/live")
def live() -> Response:
    return answer({"status": "live"})


@blueprint.get("/health/ready")
def ready() -> Response:
    try:
        with here().database.read() as connection:
            check(connection)
    except SchemaError as error:
        raise Problem("not-ready", 503, str(error)) from error
    return answer({"status": "ready"})
