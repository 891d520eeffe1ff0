"""What the tests of builds, packages and scripts share."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def normal_build() -> Path:
    """The build whose programs are run; `scripts/test` says where it is."""
    return Path(os.environ.get("GGC_BUILD_DIR", ROOT / "build" / "editable"))


def need_built(*parts: str) -> Path:
    """A part of that build. Where it is missing the test is skipped, and where `scripts/test` has
    just built everything it fails: on Linux all parts are built, but for another ggml than ours.
    """
    path = normal_build().joinpath(*parts)
    if not path.exists():
        reason = f"{path} is not built: run scripts/test, or set GGC_BUILD_DIR"
        if (
            sys.platform == "linux"
            and "GGC_BUILD_DIR" in os.environ
            and "GGML_SOURCE_DIR" not in os.environ
        ):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def check_static(built: subprocess.CompletedProcess[str]) -> None:
    """That a program was linked statically. Where the linker does not find the C library's static
    form the test is skipped; whatever else went wrong, it fails.
    """
    missing = r"(cannot|unable to) find (library )?(-lc\b|\S*crt1\.o)"
    if built.returncode and re.search(missing, built.stdout):
        pytest.skip("this compiler links nothing statically: libc.a is missing")
    assert built.returncode == 0, built.stdout


class Terminal:
    """A stream that may say that it is a terminal, and keeps what is written."""

    def __init__(self, tty: bool) -> None:
        self.tty, self.text = tty, ""

    def isatty(self) -> bool:
        return self.tty

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def find_tool(name: str) -> str:
    """A program of the virtual environment, else of the system; skips the test if it is missing."""
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is missing")
    return path


def load_script(path: Path) -> ModuleType:
    """A program that is in no package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


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
