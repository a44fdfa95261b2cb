"""Plays the demo and draws what a person saw of it: docs/demo.svg. Run by `make picture`."""

import io
import re
import sys
from pathlib import Path

from rich.console import Console

from deploy.demo import demo

WIDTH = 100


def main() -> int:
    shown = Console(record=True, width=WIDTH, highlight=False, file=io.StringIO())  # no terminal: one frame
    shown.print("[bold]$ make run[/]")
    code = demo(once=True, keep=None, console=shown)
    picture = shown.export_svg(title="tukang demo")
    # The picture must look the same where no font can be fetched, and ask nobody for one.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    (Path(__file__).parent / "demo.svg").write_text(picture)
    return code


if __name__ == "__main__":
    sys.exit(main())
