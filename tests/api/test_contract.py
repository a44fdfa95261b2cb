"""The contract: valid, complete, its examples true; every answer of every operation as it says, on both databases."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import create_app
from api.contract import document, load_contract
from api.problems import TITLES
from api.process import EXTENSION
from api.settings import load
from tests.api.conftest import FakeClock, World
from tests.api.maker import Maker
from tests.stack.postgres import Postgres

# More in the night: SCHEMATHESIS_EXAMPLES=500.
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "12"))


def test_the_contract_is_openapi() -> None:
    validate(document())


def test_the_contract_and_the_application_have_the_same_operations(world: World) -> None:
    served = {
        (method, rule.rule)
        for rule in world.app.url_map.iter_rules()
        for method in rule.methods or ()
        if method not in ("HEAD", "OPTIONS") and rule.rule != "/docs/style.css"
    }
    assert served == set(load_contract().operations)


def test_every_problem_that_the_contract_names_has_a_title() -> None:
    named = set(re.findall(r"/problems/([a-z-]+)", Path("api/openapi.yaml").read_text()))
    assert named <= set(TITLES)


def _schemas_with_examples() -> Iterator[tuple[str, Any, Any]]:
    whole = document()
    for path, item in whole["paths"].items():
        for method, described in item.items():
            if method == "parameters" or "requestBody" not in described:
                continue
            content = described["requestBody"]["content"]["application/json"]
            found = [content["example"]] if "example" in content else []
            found += [example["value"] for example in content.get("examples", {}).values()]
            assert found, f"{method} {path} has no example"
            for example in found:
                yield f"{method} {path}", {**content["schema"], "components": whole["components"]}, example


@pytest.mark.parametrize(("where", "schema", "example"), list(_schemas_with_examples()))
def test_every_example_is_valid(where: str, schema: Any, example: Any) -> None:
    jsonschema_rs.Draft202012Validator(schema).validate(example)


def test_the_example_of_a_commit_is_taken(world: World) -> None:
    whole = document()
    operation = whole["paths"]["/v1/topics/{topic}/commits"]["post"]
    example = operation["requestBody"]["content"]["application/json"]["examples"]["append"]["value"]
    maker = world.maker()
    maker.send(example | {"epoch": maker.epoch})


class Links(HTMLParser):
    """The addresses that a page makes a browser ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_docs_are_a_page_that_asks_no_other_host(world: World) -> None:
    page = world.client.get("/docs")
    assert page.mimetype == "text/html"
    text = page.get_data(as_text=True)
    assert "/v1/topics/{topic}/batches" in text
    links = Links()
    links.feed(text)
    assert all(address.startswith(("/", "#")) for address in links.found)
    assert world.client.get("/docs/style.css").mimetype == "text/css"


# Fuzzing


def _seeded(url: str) -> Flask:
    """An application with a topic, a loader and a few commits, so that known names find something."""
    clock = FakeClock()
    app = create_app(load(database=url, auth="none"), clock)
    client = app.test_client()
    maker = Maker(client, "orders", [0, 1], lambda: clock.now_us)
    maker.begin()
    for _ in range(3):
        maker.commit()
    client.put("/v1/loaders/somebody", json={"topics": ["^.*"], "from": "earliest"})
    client.post("/v1/tokens", json={"name": "somebody", "scopes": ["read"]})
    client.put("/v1/defaults/somebody", json={"pattern": "orders", "settings": {"grace": "1h"}})
    return app


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The contract as the application itself serves it, over each database."""
    postgres: Postgres | None = None
    name = ""
    if request.param == "sqlite":
        app = _seeded(f"sqlite:///{tmp_path_factory.mktemp('contract') / 'tukang.db'}")
    else:
        postgres = request.getfixturevalue("postgres")
        name = postgres.create()
        app = _seeded(postgres.url(name))
    yield schemathesis.openapi.from_wsgi("/openapi.json", app)
    app.extensions[EXTENSION].heads.stop()
    app.extensions[EXTENSION].database.dispose()
    if postgres is not None:
        postgres.drop(name)


CONFORMANCE = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
    derandomize=True,
)


@pytest.mark.slow
@pytest.mark.parametrize("operation", sorted(load_contract().operations), ids=" ".join)
def test_every_answer_is_as_the_contract_says(served: Any, operation: tuple[str, str]) -> None:
    method, rule = operation
    described = served[rule.replace("<", "{").replace(">", "}")][method.lower()]

    @FUZZ
    @given(case=described.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def positive(case: schemathesis.Case) -> None:
        _ask(case)

    @FUZZ
    @given(case=described.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def negative(case: schemathesis.Case) -> None:
        _ask(case)

    positive()
    if described.body or described.query or described.path_parameters:
        negative()


def _ask(case: schemathesis.Case) -> None:
    for name, known in (("topic", "orders"), ("name", "somebody")):
        # Every other time the name is one that exists.
        if name in (case.path_parameters or {}) and len(str(case.path_parameters[name])) % 2:
            case.path_parameters[name] = known
    if case.query and "wait" in case.query:
        case.query["wait"] = 0
    # The test client does not unpack what real ones do.
    case.call_and_validate(checks=CONFORMANCE, headers={"Accept-Encoding": "identity"})
