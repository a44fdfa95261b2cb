"""Files with presigned URLs: only for those who may load, one audit line for each issue, never kept by a cache."""

from typing import Any

from flask import Response

from api.access import caller, forbidden
from api.audit import note
from api.problems import Problem, answer
from api.process import here, query
from api.store import NoCredentialsError
from api.tables import Record
from api.topic_state import load_rules, settings_of
from api.units import parse_duration


def require_presigned() -> None:
    """Raises Problem (403) when presigned URLs are asked for by who may not load."""
    if query().get("urls") == "presigned" and "load" not in caller().scopes:
        raise forbidden(["load"])


def answer_files(said: dict[str, Any], topic: Record, files: list[dict[str, Any]]) -> Response:
    """The answer that holds these files of one topic, with URLs if they are asked for."""
    return answer_files_of(said, [(topic, files)])


def answer_files_of(said: dict[str, Any], found: list[tuple[Record, list[dict[str, Any]]]]) -> Response:
    """The answer that holds files of several topics, with URLs if they are asked for."""
    if query().get("urls") != "presigned":
        return answer(said)
    process = here()
    issued = [(topic, files) for topic, files in found if files]
    with process.database.read() as connection:
        now_us = process.database.clock(connection)
        rules = load_rules(connection)[0]
    try:
        # A thousand URLs take a fifth of a second: no transaction is kept open meanwhile.
        for topic, files in issued:
            valid_us = parse_duration(settings_of(topic, rules)["presigned_for"])
            for file in files:
                process.signer.add_url(file, valid_us, now_us)
    except NoCredentialsError as error:
        raise Problem(
            "cannot-sign", 503, "The API has no credentials for the object store, so it can sign no URLs."
        ) from error
    if issued:
        with process.database.write() as connection:
            for topic, files in issued:
                sequences = [file["sequence"] for file in files]
                note(
                    connection, now_us, "presigned", topic=topic.name,
                    after={"files": len(files), "from": min(sequences), "to": max(sequences)},
                )  # fmt: skip
    return answer(said)
