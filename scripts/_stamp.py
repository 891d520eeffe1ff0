"""Print a hash of everything that an editable install is made from.

That is the content of what is compiled and configured, the names (not the contents) of the Python
modules, the environment that the build reads, and the arguments given.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONTENT = (
    "pyproject.toml",
    "CMakeLists.txt",
    "csrc/**/*.[ch]",
    "tests/c/*.[ch]",
    "tests/metal/*.*",
    "vendor/*.*",
    "scripts/c_headers.py",
    "scripts/generate_bindings.py",
)
NAMES = ("python/**/*.py",)
ENVIRONMENT = ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CMAKE_ARGS", "GGML_SOURCE_DIR")


def parts() -> Iterator[bytes]:
    """Everything that counts, in a fixed order."""
    for pattern in CONTENT:
        for path in sorted(ROOT.glob(pattern)):
            yield str(path.relative_to(ROOT)).encode()
            yield path.read_bytes()
    for pattern in NAMES:
        yield from (str(path).encode() for path in sorted(ROOT.glob(pattern)))
    yield from (f"{name}={os.environ.get(name)}".encode() for name in ENVIRONMENT)
    yield from (text.encode() for text in (sys.prefix, sys.version, *sys.argv[1:]))


if __name__ == "__main__":
    digest = hashlib.sha256()
    for part in parts():
        digest.update(hashlib.sha256(part).digest())
    print(digest.hexdigest())
