"""Runs the C tests: as they are, and rebuilt with ggml under the sanitizers.

Each ``tests/c/test_*.c`` is a program: exit status 0 passed, 77 skipped, anything else failed.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tools import ROOT, find_tool, normal_build

PROGRAMS = sorted(path.stem for path in (ROOT / "tests" / "c").glob("test_*.c"))
LINUX_ONLY = ("test_dropin",)
SKIPPED = 77

# The thread sanitizer has nothing to find in a program with one thread, and takes long for it.
THREADED = [
    name
    for name in PROGRAMS
    if re.search("pthread_create|ggc_runner_new", (ROOT / "tests/c" / f"{name}.c").read_text())
]

SANITIZERS = {"asan": "address,undefined", "tsan": "thread"}
SANITIZER_ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
    # an instrumented program takes several times as long: fewer random cases
    "GGC_TEST_SCALE": os.environ.get("GGC_TEST_SCALE", "0.1"),
}


def run_program(command: list[str], timeout: float, **environment: str) -> None:
    """Run one test program; fails with all that it printed, or skips with its reason."""
    try:
        result = subprocess.run(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        output = (expired.output or b"").decode(errors="replace")
        pytest.fail(f"{command[-1]} did not end in {timeout:.0f} s\n{output}", pytrace=False)
    if result.returncode == SKIPPED:
        pytest.skip(result.stdout.strip() or "the program gives no reason")
    if result.returncode != 0:
        pytest.fail(f"{command[-1]}: status {result.returncode}\n{result.stdout}", pytrace=False)


def run_tool(command: list[str]) -> None:
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if result.returncode != 0:
        pytest.fail(f"{' '.join(command)}\n{result.stdout[-5000:]}", pytrace=False)


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(program: str) -> None:
    if program in LINUX_ONLY and sys.platform != "linux":
        pytest.skip("the drop-in is for Linux only")
    path = normal_build() / "tests" / program
    if not path.exists() and "GGC_BUILD_DIR" not in os.environ:
        pytest.skip("the C tests are not built: run scripts/test, or set GGC_BUILD_DIR")
    run_program([str(path)], timeout=240)


def has_sanitizer(flags: str, folder: Path) -> bool:
    """Whether the compiler has the run-time libraries, which are packages of their own here."""
    source = folder / "probe.c"
    source.write_text("int main(void) { return 0; }\n")
    compiler = os.environ.get("CC", "cc").split()
    program = folder / "probe"
    command = [*compiler, f"-fsanitize={flags}", str(source), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, check=False)
    return built.returncode == 0


def launcher() -> list[str]:
    """What the thread sanitizer needs in front: older ones fail where addresses are random."""
    setarch = shutil.which("setarch") if sys.platform == "linux" else None
    if setarch is None:
        return []
    allowed = subprocess.run([setarch, "-R", "true"], capture_output=True, check=False)
    return [setarch, "-R"] if allowed.returncode == 0 else []


@pytest.fixture(scope="session")
def instrumented(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds the C tests with everything under them instrumented, once per kind; their folder."""

    @functools.cache
    def build(kind: str) -> Path:
        flags = SANITIZERS[kind]
        if not has_sanitizer(flags, tmp_path_factory.mktemp(kind)):
            pytest.skip(f"the C compiler cannot build with -fsanitize={flags}")
        folder = ROOT / "build" / kind
        cmake = find_tool("cmake")
        definitions = {
            "CMAKE_MAKE_PROGRAM": find_tool("ninja"),
            "GGC_BUILD_TESTS": "ON",
            "GGC_PYTHON": "OFF",
            "GGC_SANITIZE": flags,
            "Python_EXECUTABLE": sys.executable,
        }
        run_tool(
            [cmake, "-S", str(ROOT), "-B", str(folder), "-G", "Ninja"]
            + [f"-D{key}={value}" for key, value in definitions.items()]
        )
        run_tool([cmake, "--build", str(folder), "--target", "c_tests"])
        return folder / "tests"

    return build


@pytest.mark.sanitizer
@pytest.mark.timeout(1200)  # the first test of each kind builds ggml
@pytest.mark.parametrize(
    ("kind", "program"),
    [("asan", name) for name in PROGRAMS] + [("tsan", name) for name in THREADED],
)
def test_program_under_sanitizer(
    instrumented: Callable[[str], Path], kind: str, program: str
) -> None:
    path = instrumented(kind) / program
    run_program([*launcher(), str(path)], timeout=600, **SANITIZER_ENVIRONMENT)
