"""The pages say what is true: their settings, commands and calls are those of the code."""

import re
from pathlib import Path

import click
import pytest
import yaml

import tukang
from docs import pages

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
SETTINGS = set(re.findall(r"TUKANG_[A-Z0-9_]+", pages.page())) | {"TUKANG_CONFIG"}
CALLS = yaml.safe_load((ROOT / "api" / "openapi.yaml").read_text())["paths"]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_page_of_settings_is_as_the_code_is_now() -> None:
    assert pages.PAGE.read_text() == pages.page(), "write it again: make docs"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_a_page_names_only_settings_that_exist(page: Path) -> None:
    assert set(re.findall(r"TUKANG_[A-Z0-9_]+", page.read_text())) <= SETTINGS


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_a_page_names_only_commands_that_exist(page: Path) -> None:
    assert isinstance(tukang.main, click.Group)
    named = set(re.findall(r"`tukang ([a-z-]+)", page.read_text()))
    assert named <= set(tukang.main.commands)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_a_page_names_only_calls_that_the_contract_has(page: Path) -> None:
    named = re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`?\s]*)", page.read_text())
    assert not [(method, path) for method, path in named if method.lower() not in CALLS.get(path, {})]


@pytest.mark.parametrize("name", sorted(tukang.main.commands))  # type: ignore[attr-defined]
def test_a_command_says_what_it_does(name: str) -> None:
    assert tukang.main.commands[name].help  # type: ignore[attr-defined]
