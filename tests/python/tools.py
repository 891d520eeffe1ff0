"""What the tests of builds, packages and scripts share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def normal_build() -> Path:
    """The build whose programs are run; `scripts/test` says where it is."""
    return Path(os.environ.get("GGC_BUILD_DIR", ROOT / "build" / "editable"))


def find_tool(name: str) -> str:
    """A program of the virtual environment, else of the system; skips the test if it is missing."""
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is missing")
    return path


def run(
    *command: str | Path, cwd: Path | None = None, timeout: float = 600, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; both of its outputs are in ``stdout``, in order."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
