"""Every module of tests/stack is a file of fixtures: real servers, once per session, on free ports."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.part import Ward

_stack = sorted(each.stem for each in (Path(__file__).parent / "stack").glob("*.py"))
pytest_plugins = [f"tests.stack.{name}" for name in _stack if name != "__init__"]
pytest.register_assert_rewrite(*pytest_plugins)  # they import each other, some before their turn

# A shell that starts the tests in the background has these ignored, and so would every program that a test interrupts.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def temp_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The temp folder of this session and of every process it starts. It goes with all that killed ones left there."""
    tmp_path_factory.getbasetemp()  # pytest's own stays where it is, for whoever wants to see why a test failed
    folder = Path(tempfile.mkdtemp(prefix="tukang-tests-"))
    folder.chmod(0o711)  # PostgreSQL runs as another user below it
    Ward(remove=folder).__enter__()  # until this process ends: others of its parts use the folder to the last
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder
