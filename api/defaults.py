"""Settings by pattern of topic names. Which value holds for a topic is decided in `topic_settings.py`."""

from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection, delete, insert, update

from api.audit import note
from api.confirmation import require_confirmation, topics_of
from api.problems import Problem, answer
from api.process import body, here
from api.tables import defaults, installation
from api.topic_settings import Rule, resolve, wrong_pattern
from api.topic_state import load_rules
from api.topics import refuse_wrong

blueprint = Blueprint("defaults", __name__)


def _rule_json(rule: Rule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "pattern": rule.pattern,
        "priority": rule.priority,
        "settings": dict(rule.settings),
    }


def _raise_version(connection: Connection) -> None:
    """Every change passes here first: the row is the lock of all defaults, and tells workers that settings moved."""
    connection.execute(update(installation).values(defaults_version=installation.c.defaults_version + 1))


def _found(connection: Connection, name: str) -> dict[str, Any] | None:
    return next((_rule_json(rule) for rule in load_rules(connection)[0] if rule.name == name), None)


def _confirm(connection: Connection, after: list[Rule]) -> None:
    """Raises Problem (409) when the rules as they will be cut the retention of some topic too far."""
    before, now_us = load_rules(connection)[0], here().database.clock(connection)
    for topic in topics_of(connection):
        require_confirmation(
            connection,
            topic,
            resolve(topic.name, topic.settings, before),
            resolve(topic.name, topic.settings, after),
            now_us,
        )


@blueprint.get("/v1/defaults")
def list_defaults() -> Response:
    with here().database.read() as connection:
        return answer({"defaults": [_rule_json(rule) for rule in load_rules(connection)[0]]})


@blueprint.put("/v1/defaults/<name>")
def put_defaults(name: str) -> Response:
    asked = body()
    settings = {key: value for key, value in asked["settings"].items() if value is not None}
    refuse_wrong(settings)
    wrong = wrong_pattern(asked["pattern"])
    if wrong is not None:
        raise Problem("settings-invalid", 422, f"pattern: {wrong}", errors={"pattern": wrong})
    rule = Rule(name, asked["pattern"], int(asked.get("priority", 0)), settings)
    with here().database.read() as connection:
        if _found(connection, name) == _rule_json(rule):
            return answer(_rule_json(rule))  # no worker need ask again
    with here().database.write() as connection:
        _raise_version(connection)
        before = _found(connection, name)
        if not asked.get("confirm", False):
            _confirm(connection, [*(old for old in load_rules(connection)[0] if old.name != name), rule])
        connection.execute(delete(defaults).where(defaults.c.name == name))
        connection.execute(insert(defaults).values(**_rule_json(rule)))
        note(
            connection, here().database.clock(connection), "put_defaults", target=name,
            before=before, after=_rule_json(rule),
        )  # fmt: skip
    return answer(_rule_json(rule))


@blueprint.delete("/v1/defaults/<name>")
def delete_defaults(name: str) -> Response:
    with here().database.write() as connection:
        _raise_version(connection)
        before = _found(connection, name)
        if before is None:
            raise Problem("not-found", 404, f"There are no defaults {name}.")
        connection.execute(delete(defaults).where(defaults.c.name == name))
        note(
            connection, here().database.clock(connection), "delete_defaults", target=name, before=before
        )  # fmt: skip
    return Response(status=204)
