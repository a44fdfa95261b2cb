"""Every module of tests/stack is a file of fixtures: real servers, once per session, on free ports."""

from pathlib import Path

import pytest

_stack = sorted(each.stem for each in (Path(__file__).parent / "stack").glob("*.py"))
pytest_plugins = [f"tests.stack.{name}" for name in _stack if name != "__init__"]
pytest.register_assert_rewrite(*pytest_plugins)  # they import each other, some before their turn

# Run by `make simulate`; its two thousand seeds join this run once each of its rules is proved to bite.
collect_ignore = ["simulation"]
