#!/usr/bin/env python3
"""Put the pinned ggml source tree into ``vendor/ggml`` and print where it is.

The tree comes from the source distribution that ``pin.json`` names, taken from the package index by
pip, checked against the pinned SHA-256 and unpacked without what we never build. A tree that
carries the same pin already is used as it is, without network. Only the standard library and pip
are needed. Standard output gets one line, the path of the tree; whatever goes wrong ends in one
message on standard error and exit status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

VENDOR = Path(__file__).resolve().parent
PIN_NAME = "pin.json"  # also the name of the copy in an unpacked tree that marks it as complete

# pip settings of the caller's environment that make a plain download of one file fail or go
# elsewhere. Index, proxy, certificate and cache settings stay.
DROPPED_SETTINGS = frozenset(
    f"PIP_{name}"
    for name in (
        "CONSTRAINT BUILD_CONSTRAINT REQUIREMENT REQUIRE_HASHES DRY_RUN ONLY_BINARY NO_BINARY"
        " TARGET PREFIX ROOT USER PLATFORM PYTHON_VERSION IMPLEMENTATION ABI QUIET VERBOSE LOG"
        " REQUIRE_VIRTUALENV CONFIG_SETTINGS"
    ).split()
)
# A dead network is told after seconds, not minutes; the caller's own settings win.
DEFAULT_SETTINGS = {"PIP_RETRIES": "1", "PIP_DEFAULT_TIMEOUT": "15"}

NETWORK_SIGNS = (
    "connection",
    "timed out",
    "timeout",
    "ssl",
    "proxy",
    "name resolution",
    "no-index",
)


class FetchError(Exception):
    """What went wrong and what to do about it, in one text for the user."""


@dataclasses.dataclass(frozen=True)
class Pin:
    """The source distribution that we build from, and what of it is kept.

    ``keep`` holds paths below ``path``: a file, a folder with everything in it (``folder/``), or
    the files directly in a folder (``folder/*``). What stands in ``ggml/`` moves to the top.
    """

    package: str
    version: str
    sha256: str
    path: str
    ggml_version: str
    keep: tuple[str, ...]

    @property
    def requirement(self) -> str:
        """The package as pip names it."""
        return f"{self.package}=={self.version}"

    def target_of(self, member: str) -> PurePosixPath | None:
        """Where a file of the archive goes in the tree; None if it is not kept."""
        parts = PurePosixPath(member).parts[1:]  # without the archive's top folder
        prefix = PurePosixPath(self.path).parts
        if parts[: len(prefix)] != prefix or ".." in parts:
            return None
        inside = PurePosixPath(*parts[len(prefix) :])
        if not any(_matches(inside, pattern) for pattern in self.keep):
            return None
        return inside.relative_to("ggml") if inside.parts[0] == "ggml" else inside


def _matches(path: PurePosixPath, pattern: str) -> bool:
    if pattern.endswith("/*"):
        return path.parent == PurePosixPath(pattern[:-2])
    if pattern.endswith("/"):
        return PurePosixPath(pattern) in path.parents
    return path == PurePosixPath(pattern)


def read_pin(path: Path) -> Pin:
    """Read a pin file; FetchError if it is not one."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        pin = Pin(**{**fields, "keep": tuple(fields["keep"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FetchError(
            f"{path} is no valid pin of ggml: {error}. Restore it from git."
        ) from error
    if len(pin.sha256) != 64 or set(pin.sha256) - set("0123456789abcdef"):
        raise FetchError(f"{path}: sha256 must be 64 lower-case hex digits, not {pin.sha256!r}.")
    return pin


def is_current(tree: Path, pin: Pin) -> bool:
    """Whether ``tree`` was unpacked, completely, from ``pin``."""
    try:
        return read_pin(tree / PIN_NAME) == pin
    except FetchError:
        return False


def download(pin: Pin, folder: Path) -> Path:
    """Have pip download the pinned source distribution into ``folder``; returns the file.

    The hash stands in a requirements file, so that pip refuses a wrong file before it runs any of
    the code in it; it is checked here once more.
    """
    if importlib.util.find_spec("pip") is None:
        raise FetchError(
            f"fetching ggml needs pip, which {sys.executable} lacks. Run "
            f"'{sys.executable} -m ensurepip' (Debian, Ubuntu: apt install python3-pip), or set "
            "GGML_SOURCE_DIR to a ggml source tree."
        )
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{pin.requirement} --hash=sha256:{pin.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input"]
    command += ["--progress-bar=off", "--no-deps", "--no-binary", pin.package]
    if importlib.util.find_spec("scikit_build_core") is not None:
        # pip asks the sdist for its metadata, for which it would install this very package again.
        command.append("--no-build-isolation")
    command += ["-r", str(requirements), "-d", str(folder)]
    kept = {name: value for name, value in os.environ.items() if name not in DROPPED_SETTINGS}
    result = subprocess.run(
        command,
        env={**DEFAULT_SETTINGS, **kept},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    archives = sorted(folder.glob("*.tar.gz"))
    if result.returncode != 0 or len(archives) != 1:
        raise _explain(pin, result.stdout)
    check_hash(archives[0], pin)
    return archives[0]


def _explain(pin: Pin, output: str) -> FetchError:
    """Turn the output of a failed pip into one message."""
    if "DO NOT MATCH THE HASHES" in output:
        got = [line.split()[-1] for line in output.splitlines() if line.strip().startswith("Got ")]
        return _wrong_hash(pin, got[0] if got else "another")
    lines = output.strip().splitlines()
    broken = [line for line in lines if any(sign in line.lower() for sign in NETWORK_SIGNS)]
    if broken:
        return FetchError(
            f"the package index could not be reached for {pin.requirement}, which carries ggml "
            f"{pin.ggml_version}. Connect to the network once (pip's index and proxy settings are "
            "used), or set GGML_SOURCE_DIR to a ggml source tree. The last that pip said of it: "
            f"{broken[-1].strip()}"
        )
    errors = [line for line in lines if line.startswith("ERROR:")]
    return FetchError(
        f"pip could not download {pin.requirement}, which carries ggml {pin.ggml_version} "
        f"(it says: {(errors or lines or ['nothing'])[0]}). See that 'pip download --no-deps "
        f"--no-binary {pin.package} {pin.requirement}' works, or set GGML_SOURCE_DIR to a ggml "
        "source tree."
    )


def _wrong_hash(pin: Pin, got: str) -> FetchError:
    return FetchError(
        f"the source distribution of {pin.requirement} has a wrong checksum: SHA-256 {pin.sha256} "
        f"is pinned in vendor/{PIN_NAME}, the file that came has {got}. Nothing was unpacked. "
        "Look at the package index or mirror that pip is set to; do not change the pin unless "
        "you mean to build another ggml."
    )


def check_hash(archive: Path, pin: Pin) -> None:
    """FetchError unless the file has the pinned SHA-256."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != pin.sha256:
        raise _wrong_hash(pin, digest)


def unpack(archive: Path, pin: Pin, tree: Path) -> None:
    """Write the kept files of ``archive`` below ``tree``, the copy of the pin last.

    Only regular files are taken, under names that are made here: a link or an absolute name in the
    archive can reach nothing outside the tree.
    """
    count = 0
    with tarfile.open(archive, "r:gz") as source:
        for member in source:
            place = pin.target_of(member.name) if member.isfile() else None
            content = source.extractfile(member) if place is not None else None
            if place is None or content is None:
                continue
            path = tree / place
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                shutil.copyfileobj(content, file)
            count += 1
    if not (tree / "CMakeLists.txt").is_file() or not (tree / "LICENSE").is_file():
        raise FetchError(
            f"{pin.requirement} holds no ggml under {pin.path} ({count} files matched). "
            f"Look at 'path' and 'keep' in vendor/{PIN_NAME}."
        )
    fields = json.dumps(dataclasses.asdict(pin), indent=2)
    (tree / PIN_NAME).write_text(fields + "\n", encoding="utf-8")


def install(fresh: Path, target: Path, pin: Pin) -> None:
    """Rename the complete tree ``fresh`` to ``target``.

    Renaming is the only change that others see, so that a build beside this one finds the old tree,
    no tree or the new one. Where another build was faster, its tree stays.
    """
    if target.exists() and not is_current(target, pin):
        with contextlib.suppress(FileNotFoundError):  # another build moved it just now
            target.rename(fresh.with_name(fresh.name + "-old"))
    try:
        fresh.rename(target)
    except OSError:
        if not is_current(target, pin):
            raise


@contextlib.contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A folder beside the target, on the same file system; gone at the end, whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix=".ggml-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def progress(text: str) -> Iterator[None]:
    """Show a line on a terminal while the work goes on; say nothing in a pipe."""
    if not sys.stderr.isatty():
        yield
        return
    print(text, end=" ", file=sys.stderr, flush=True)
    try:
        yield
    except BaseException:
        print("failed", file=sys.stderr)
        raise
    print("done", file=sys.stderr)


def writable(targets: Sequence[Path]) -> Path:
    """The first of ``targets`` beside which files can be made; FetchError if there is none."""
    reasons = []
    for target in targets:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with scratch(target.parent):
                return target
        except OSError as error:
            reasons.append(f"{target.parent}: {error.strerror or error}")
    raise FetchError(
        f"ggml's source cannot be unpacked ({'; '.join(reasons)}). Make the folder writable, or "
        "set GGML_SOURCE_DIR to a ggml source tree."
    )


def fetch(pin: Pin, targets: Sequence[Path]) -> Path:
    """The pinned tree: the first of ``targets`` that is current, else a fresh one.

    A fresh tree goes to the first target that can be written.
    """
    for target in targets:
        if is_current(target, pin):
            return target
    target = writable(targets)
    try:
        with scratch(target.parent) as folder:
            with progress(f"Fetching ggml {pin.ggml_version} ({pin.requirement}) ..."):
                archive = download(pin, folder)
            fresh = folder / "tree"
            unpack(archive, pin, fresh)
            install(fresh, target, pin)
    except (OSError, tarfile.TarError) as error:
        raise FetchError(
            f"ggml's source could not be unpacked to {target}: {error}. Free some space (40 MB are "
            "needed) or remove that folder, and try again."
        ) from error
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--pin", type=Path, default=VENDOR / PIN_NAME, help="the pin file")
    parser.add_argument(
        "--target", type=Path, default=VENDOR / "ggml", help="where the tree goes (vendor/ggml)"
    )
    parser.add_argument(
        "--fallback", type=Path, help="where it goes if the folder of --target is read-only"
    )
    options = parser.parse_args(arguments)
    targets = [path.absolute() for path in (options.target, options.fallback) if path is not None]
    try:
        print(fetch(read_pin(options.pin), targets))
    except FetchError as error:
        print(f"ggml-concurrent: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
