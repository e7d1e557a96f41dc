"""Figures 1 to 3 and 7 of the official SDK, in an environment of its own: its distribution has the name of ours."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import venv
from typing import TYPE_CHECKING, Final

from bench import requests_added, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.result import Row, Size

RIVAL: Final = "readme-metrics[Flask]==3.4.0"
WHOSE: Final = " (3.4.0)"


def python_of(directory: Path) -> str:
    """The interpreter of its environment, which is made where it is missing."""
    python = directory / "bin" / "python"
    if not (directory / "stamp").exists():
        print(f"Installing {RIVAL} into {directory} (once) ...", file=sys.stderr)
        venv.create(directory, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install", RIVAL, "gunicorn"]
        subprocess.run(command, check=True)
        (directory / "stamp").touch()
    return str(python)


def figures(size: Size, directory: Path) -> Iterator[Row]:
    """Measured beside a bare app of the same environment; not judged."""
    python = python_of(directory)
    for row in requests_added.rows_of(requests_added.run(python, "well", size), WHOSE):
        yield dataclasses.replace(row, judged=False)
    for row in served.figure_7(size, python, WHOSE):
        yield dataclasses.replace(row, judged=False)
