"""Every module of tests/stack is a file of fixtures: real servers, once per session, on free ports."""

import signal
from pathlib import Path

import pytest

_stack = sorted(each.stem for each in (Path(__file__).parent / "stack").glob("*.py"))
pytest_plugins = [f"tests.stack.{name}" for name in _stack if name != "__init__"]
pytest.register_assert_rewrite(*pytest_plugins)  # they import each other, some before their turn

# A shell that starts the tests in the background has these ignored, and so would every program that a test interrupts.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
