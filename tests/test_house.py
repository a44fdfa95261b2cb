"""The house's own rules: who may import whom, what a file may hold, and that the pages say what is true."""

import ast
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.part import clean_environment

ROOT = Path(__file__).parent.parent
PACKAGES = ("ingest", "api", "loaders", "deploy")
MAY_IMPORT = {
    "ingest": {"ingest"},
    "api": {"api"},
    "loaders": {"loaders"},
    "deploy": set(PACKAGES),
    "tukang.py": set(PACKAGES),
}
MODULES = [each for name in PACKAGES for each in sorted((ROOT / name).rglob("*.py"))] + [
    *ROOT.glob("tukang.py")
]
TEXTS = [
    each
    for pattern in ("*.md", "*.toml", "*.py", "Makefile", ".ci/*")
    for each in sorted(ROOT.glob(pattern))
    if each.is_file()
] + [
    each
    for folder in (*PACKAGES, "tests", "bench", "docs")
    for each in sorted((ROOT / folder).rglob("*"))
    if each.suffix
    in {".py", ".md", ".yaml", ".toml", ".html", ".css", ".js", ".json", ".sql", ".svg", ".mako", ".sh"}
]
MACHINE_PATH = re.compile(r"(^|[^A-Za-z0-9_.])/(home|root|Users|work)/")
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(module: Path) -> Iterator[tuple[int, str]]:
    """Line and top-level name of everything a module imports, also inside functions."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, relative(module).partition("/")[0]
            else:
                yield node.lineno, (node.module or "").partition(".")[0]


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_a_package_imports_no_package_beyond_its_border(module: Path) -> None:
    allowed = MAY_IMPORT[relative(module).partition("/")[0]]
    own = {*PACKAGES, "tukang", "tests", "bench"}
    wrong = [f"line {line}: {name}" for line, name in imported(module) if name in own - allowed]
    assert not wrong, f"{relative(module)} may not import {', '.join(wrong)}"


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_a_module_says_what_lives_in_it(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text())), f"{relative(module)} has no docstring"


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_a_module_has_one_noun(module: Path) -> None:
    lines = module.read_text().count("\n")
    assert lines <= 380, f"{relative(module)} has {lines} lines: does it still have one noun?"
    assert module.stem not in {"common", "utils", "util", "helpers", "base", "misc"}, (
        "a name that says nothing"
    )


def test_only_the_named_files_know_the_outside_world() -> None:
    """Faust and aiokafka, boto3 and the database stand behind few files, so that they can be exchanged."""
    knows: dict[str, set[str]] = {}
    for module in MODULES:
        for _, name in imported(module):
            knows.setdefault(name, set()).add(relative(module))
    packages = {name: {each.partition("/")[0] for each in files} for name, files in knows.items()}
    assert packages.get("faust", set()) <= {"ingest"}
    assert packages.get("aiokafka", set()) <= {"ingest"}
    assert packages.get("sqlalchemy", set()) <= {"api"}
    for package in ("ingest", "api"):
        files = {each for each in knows.get("boto3", set()) if each.startswith(f"{package}/")}
        assert len(files) <= 1, f"boto3 is known to {sorted(files)}: one file per side is enough"


@pytest.mark.parametrize("text", TEXTS, ids=relative)
def test_no_file_names_a_path_of_one_machine(text: Path) -> None:
    for number, line in enumerate(text.read_text().splitlines(), 1):
        assert not MACHINE_PATH.search(line), f"{relative(text)}:{number} names a path of one machine"


@pytest.mark.parametrize("page", [each for each in TEXTS if each.suffix == ".md"], ids=relative)
def test_a_page_links_only_to_what_is_there(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{relative(page)} links to {target}, which is not there"


@pytest.mark.parametrize("page", [each for each in TEXTS if each.suffix == ".md"], ids=relative)
def test_a_page_names_only_targets_that_make_knows(page: Path) -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", page.read_text()))
    assert named <= known, f"{relative(page)} names {sorted(named - known)}"


@pytest.mark.slow
def test_tests_leave_nothing_in_the_temp_folder(temp_folder: Path) -> None:
    """Not even those that kill who has something there. Pytest's own folder shows why a test failed."""
    inner = temp_folder / "inner"  # a short name: sockets stand below it
    inner.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/ingest/upkeep/test_sweeping.py"],
        env=clean_environment({"TMPDIR": str(inner)}), cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    while [each for each in inner.iterdir() if not each.name.startswith("pytest-of-")]:
        time.sleep(0.05)  # the test's own timeout ends this
