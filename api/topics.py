"""Topics as operators see them: the list, one with its settings, registering, changing settings, pause and resume."""

from typing import Any

from flask import Blueprint, Response, request
from sqlalchemy import Connection, select, update

from api.access import caller, require_topics
from api.audit import note
from api.confirmation import require_confirmation
from api.pages import page_state, page_token
from api.positions import make_topic
from api.problems import Problem, answer
from api.process import body, here, query
from api.tables import Record, topics
from api.topic_settings import PERIODS_US, explain, resolve, wrong_settings
from api.topic_state import describe, find_topic, load_rules, no_topic, settings_version

blueprint = Blueprint("topics", __name__)


def show(connection: Connection, topic: Record, status: int = 200, *, explained: bool = False) -> Response:
    """One topic whole, with the version of its settings as ETag."""
    now_us = here().database.clock(connection)
    [shown] = describe(connection, [topic], now_us, with_partitions=True)
    if explained:
        shown["explained"] = {
            name: {"value": found.value, "origin": found.origin, "defaults": found.rule}
            for name, found in explain(topic.name, topic.settings, load_rules(connection)[0]).items()
        }
    response = answer(shown, status)
    response.set_etag(str(shown["settings_version"]))
    return response


def refuse_wrong(changes: dict[str, Any]) -> None:
    """Raises Problem when a change of settings is not valid."""
    wrong = wrong_settings(changes)
    if wrong:
        first = next(iter(wrong.items()))
        raise Problem("settings-invalid", 422, f"{first[0]}: {first[1]}", errors=wrong)


def lock_topic(connection: Connection, name: str) -> Record:
    """The topic's row, locked until the transaction ends. Raises Problem when there is none."""
    topic = connection.execute(select(topics).where(topics.c.name == name).with_for_update()).one_or_none()
    if topic is None:
        raise no_topic(name)
    return topic


@blueprint.get("/v1/topics")
def list_topics() -> Response:
    asked = query()
    limit = asked["limit"]
    state = page_state(asked.get("page"), name=str)
    database = here().database
    with database.read() as connection:
        wanted = select(topics).order_by(topics.c.name)
        if state:
            wanted = wanted.where(topics.c.name > state["name"])
        if caller().topics is None:
            rows = list(connection.execute(wanted.limit(limit + 1)))
        else:
            rows = [row for row in connection.execute(wanted) if caller().sees(row.name)][: limit + 1]
        shown = describe(connection, rows[:limit], database.clock(connection))
    return answer(
        {"topics": shown, "next_page": page_token(name=rows[limit - 1].name) if len(rows) > limit else None}
    )


@blueprint.post("/v1/topics")
def create_topic() -> Response:
    database = here().database
    asked = body()
    require_topics([asked["topic"]])
    settings = {name: value for name, value in asked.get("settings", {}).items() if value is not None}
    refuse_wrong(settings)
    with database.write() as connection:
        if not make_topic(connection, asked["topic"], settings, database.clock(connection)):
            raise Problem(
                "topic-exists", 409, f"Topic {asked['topic']} exists; change its settings by PATCH."
            )
        note(
            connection, database.clock(connection), "create_topic", topic=asked["topic"], after=settings
        )  # fmt: skip
        return _shown_or_undone(connection, asked["topic"], 201)


@blueprint.get("/v1/topics/<topic>")
def get_topic(topic: str) -> Response:
    with here().database.read() as connection:
        return show(connection, find_topic(connection, topic), explained="explain" in query())


@blueprint.patch("/v1/topics/<topic>")
def patch_topic(topic: str) -> Response:
    changes: dict[str, Any] = body()["settings"]
    refuse_wrong(changes)
    with here().database.write() as connection:
        row = lock_topic(connection, topic)
        _, defaults_version = load_rules(connection)
        version = settings_version(row, defaults_version)
        if request.if_match and str(version) not in request.if_match:
            raise Problem(
                "settings-moved", 412, f"The settings are at version {version}: read them again.",
                settings_version=version,
            )  # fmt: skip
        period = changes.get("period")
        if period is not None and row.period_us not in (None, PERIODS_US[period]):
            wrong = "is fixed by the topic's first rows"
            raise Problem("settings-invalid", 422, f"period: {wrong}", errors={"period": wrong})
        own = {name: value for name, value in {**row.settings, **changes}.items() if value is not None}
        if own != row.settings:
            rules = load_rules(connection)[0]
            if not body().get("confirm", False):
                before, after = resolve(topic, row.settings, rules), resolve(topic, own, rules)
                require_confirmation(connection, row, before, after, here().database.clock(connection))
            connection.execute(
                update(topics)
                .where(topics.c.id == row.id)
                .values(settings=own, settings_version=row.settings_version + 1)
            )
            note(
                connection, here().database.clock(connection), "patch_topic", topic=topic,
                before={name: row.settings.get(name) for name in changes}, after=changes,
            )  # fmt: skip
        return _shown_or_undone(connection, topic, 200)


def _shown_or_undone(connection: Connection, topic: str, status: int) -> Response:
    """The topic as it is now; with `dry_run` as it would be, and everything that the transaction did is taken back."""
    dry = "dry_run" in query()
    shown = show(connection, find_topic(connection, topic), 200 if dry else status)
    if dry:
        connection.rollback()
    return shown


def _set_paused(topic: str, *, paused: bool) -> Response:
    database = here().database
    with database.write() as connection:
        row = lock_topic(connection, topic)
        if paused != (row.paused_us is not None) or (row.suspended_sequence is not None and not paused):
            now_us = database.clock(connection)
            changes: dict[str, Any] = {"paused_us": now_us if paused else None}
            if not paused:
                changes |= {"suspended_sequence": None}
            connection.execute(update(topics).where(topics.c.id == row.id).values(changes))
            note(connection, now_us, "pause_topic" if paused else "resume_topic", topic=topic)
        return show(connection, find_topic(connection, topic))


@blueprint.post("/v1/topics/<topic>/pause")
def pause_topic(topic: str) -> Response:
    return _set_paused(topic, paused=True)


@blueprint.post("/v1/topics/<topic>/resume")
def resume_topic(topic: str) -> Response:
    return _set_paused(topic, paused=False)
