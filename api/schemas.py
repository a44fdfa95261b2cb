"""Schemas of topics: documents with versions, changed by compare-and-set. What they mean is the worker's to know."""

from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection, insert, select, update

from api.problems import Problem, answer
from api.process import body, here, query
from api.tables import schemas, topics
from api.topic_state import find_topic, no_topic

blueprint = Blueprint("schemas", __name__)


def read_schema(connection: Connection, topic_id: int, version: int) -> dict[str, Any] | None:
    """A version of the schema as the contract's TopicSchema; version 0 is the schema without columns."""
    if version == 0:
        return {"version": 0, "columns": [], "decisions": []}
    row = connection.execute(
        select(schemas).where(schemas.c.topic_id == topic_id, schemas.c.version == version)
    ).one_or_none()
    return (
        None if row is None else {"version": row.version, "columns": row.columns, "decisions": row.decisions}
    )


@blueprint.get("/v1/topics/<topic>/schema")
def get_schema(topic: str) -> Response:
    with here().database.read() as connection:
        row = find_topic(connection, topic)
        version = query().get("version", row.schema_version)
        found = read_schema(connection, row.id, version)
    if found is None:
        raise Problem(
            "not-found",
            404,
            f"Topic {topic} has no schema version {version}; {row.schema_version} is the newest.",
        )
    return answer(found)


@blueprint.post("/v1/topics/<topic>/schemas")
def register_schema(topic: str) -> Response:
    database = here().database
    asked = body()
    with database.write() as connection:
        row = connection.execute(select(topics).where(topics.c.name == topic).with_for_update()).one_or_none()
        if row is None:
            raise no_topic(topic)
        if asked["base_version"] != row.schema_version:
            raise Problem(
                "schema-moved", 409,
                f"The newest schema is version {row.schema_version}, not {int(asked['base_version'])}: merge with "
                "`current` and try again.",
                current=read_schema(connection, row.id, row.schema_version),
            )  # fmt: skip
        made = {
            "version": row.schema_version + 1,
            "columns": asked["columns"],
            "decisions": asked.get("decisions", []),
        }
        connection.execute(
            insert(schemas).values(topic_id=row.id, created_us=database.clock(connection), **made)
        )
        connection.execute(update(topics).where(topics.c.id == row.id).values(schema_version=made["version"]))
    return answer(made, 201)
