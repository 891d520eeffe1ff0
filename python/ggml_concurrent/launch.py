"""`ggml-concurrent exec`: another program with the drop-in loaded ahead of it."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from .dropin import plugin_path
from .elf import read_elf
from .errors import DeviceError, FormatError

__all__ = ["EXIT_NOT_FOUND", "EXIT_NOT_RUN", "obstacle", "replace_process"]

EXIT_NOT_RUN, EXIT_NOT_FOUND = 126, 127  # what shells say


def replace_process(command: Sequence[str], settings: dict[str, str]) -> int:
    """Run the command in place of this process; returns an exit code only if that fails.

    `settings` are further environment variables.  Raises DeviceError where nothing can be loaded
    ahead of a program.
    """
    library = str(plugin_path())
    if any(c in library for c in " :"):
        raise DeviceError(
            f"the loader cannot be given {library}: its name has a space or a colon in it; install "
            "ggml-concurrent elsewhere"
        )
    path = shutil.which(command[0])
    if path is None:
        print(f"ggml-concurrent: {command[0]}: no such program", file=sys.stderr)
        return EXIT_NOT_FOUND
    reason = obstacle(Path(path))
    if reason:
        print(f"ggml-concurrent: {path} will not be reached: {reason}", file=sys.stderr)
    before = os.environ.get("LD_PRELOAD", "")
    environment = {
        **os.environ,
        **settings,
        "LD_PRELOAD": f"{library} {before}".strip(),
        "GGML_CONCURRENT_EXEC": str(os.getpid()),
    }
    try:
        os.execvpe(path, list(command), environment)  # noqa: S606  it is what was asked for
    except OSError as error:
        print(f"ggml-concurrent: {path}: {error.strerror}", file=sys.stderr)
    return EXIT_NOT_RUN


def obstacle(path: Path) -> str:
    """Why nothing can be loaded ahead of the program, "" if something can."""
    try:
        program = _interpreter(path) or path
        if program.stat().st_mode & (stat.S_ISUID | stat.S_ISGID):
            return "it runs with the rights of its owner, and the loader then preloads nothing"
        if not read_elf(program).interpreter:
            return f"{program} is linked statically"
    except FormatError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return ""


def _interpreter(path: Path) -> Path | None:
    """What runs a script, as its first line says: for `env NAME`, that program."""
    with path.open("rb") as file:
        line = file.readline(4096)
    if not line.startswith(b"#!"):
        return None
    words = line[2:].decode("utf-8", "replace").split()
    if not words:
        return None
    names = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    if Path(words[0]).name == "env" and names:
        found = shutil.which(names[0])
        return Path(found) if found else None
    return Path(words[0])
