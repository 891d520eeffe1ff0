"""`ggml-concurrent exec`: another program with the drop-in loaded ahead of it."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from .dropin import plugin_path
from .elf import Elf, read_elf
from .errors import DeviceError, FormatError

__all__ = [
    "EXIT_NOT_FOUND",
    "EXIT_NOT_RUN",
    "interpreter_of",
    "obstacle",
    "program_of",
    "replace_process",
]

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
        return _say_not_found(command[0])
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


def _say_not_found(name: str) -> int:
    path = Path(name)
    is_there = "/" in name and path.exists()
    reason = "no such program"
    if is_there:
        reason = "a folder, no program" if path.is_dir() else "not executable (chmod +x)"
    print(f"ggml-concurrent: {name}: {reason}", file=sys.stderr)
    return EXIT_NOT_RUN if is_there else EXIT_NOT_FOUND


def obstacle(path: Path) -> str:
    """Why nothing can be loaded ahead of the program, "" if something can."""
    try:
        program = program_of(path)
        reason = _reason_against(read_elf(program), read_elf(plugin_path()))
        if not reason and _changes_rights(program):
            reason = "runs with rights that you do not have, and the loader then preloads nothing"
    except FormatError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return f"{program} {reason}" if reason else ""


def _reason_against(program: Elf, drop_in: Elf) -> str:
    if program.machine != drop_in.machine:
        return f"is for {program.machine}, and the drop-in here for {drop_in.machine}"
    if not program.interpreter:
        return "is linked statically"
    if "musl" in program.interpreter and "libc.so.6" in drop_in.needed:
        return "has musl as its C library, and the drop-in here glibc"
    return ""


def _changes_rights(program: Path) -> bool:
    """Whether it is set-user-id, set-group-id or has capabilities, and that makes a difference."""
    status = program.stat()
    if status.st_mode & stat.S_ISUID and status.st_uid != os.getuid():
        return True
    if status.st_mode & stat.S_ISGID and status.st_gid != os.getgid():
        return True
    try:
        return os.getuid() != 0 and "security.capability" in os.listxattr(program)
    except OSError:
        return False  # a file system that knows no attributes


def interpreter_of(path: Path) -> Path | None:
    """What runs a script, as its first line says, for `env NAME` that program; None: no script."""
    with path.open("rb") as file:
        line = file.readline(4096)
    if not line.startswith(b"#!"):
        return None
    words = line[2:].decode("utf-8", "replace").split()
    if not words:
        raise FormatError(f"{path}: its first line names no interpreter")
    names = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    if Path(words[0]).name != "env" or not names:
        return Path(words[0])
    found = shutil.which(names[0])
    if found is None:
        raise FormatError(f"{path}: its interpreter {names[0]} is not installed")
    return Path(found)


def program_of(path: Path) -> Path:
    """What is run in the end: the interpreter of a script, or of the script that is that."""
    for _ in range(5):  # as many as Linux follows
        interpreter = interpreter_of(path)
        if interpreter is None:
            return path
        path = interpreter
    raise FormatError(f"{path}: scripts run one another without end")
