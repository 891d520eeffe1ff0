"""All of ours, and ggml's libraries, compiled and linked for macOS on arm64, on any machine.

The compiler comes with the package ziglang, which has the C library's headers and symbols for macOS
but no frameworks: ggml's Metal backend is built without its two Objective-C files, for the
simulation; docs/metal.md says what is not covered by this.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from test_c import LINUX_ONLY, PROGRAMS
from tools import ROOT, find_tool, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TARGET = "aarch64-macos"
SETTINGS = {
    "CMAKE_SYSTEM_NAME": "Darwin",
    "CMAKE_SYSTEM_PROCESSOR": "arm64",
    "CMAKE_INSTALL_NAME_TOOL": "/bin/true",  # asked for, and used by `cmake --install` alone
    "GGC_BUILD_TESTS": "ON",
    "GGC_CPU_VARIANTS": "native",
    "GGC_METAL": "OFF",
    "GGC_OPENMP": "OFF",
    "GGC_PYTHON": "OFF",
    "GGML_ACCELERATE": "OFF",
    "GGML_CPU_ARM_ARCH": "apple_m1",  # zig takes names of processors here
}
LIBRARIES = ("libggml-concurrent.dylib", "libggc-ggml.dylib", "libggc-ggml-base.dylib")
MODULES = ("metal_compare", "metal_sim")

MACH_O, ARM64 = 0xFEEDFACF, 0x0100000C
LOAD_DYLIB, RPATH = 0xC, 0x8000001C


def zig() -> list[str]:
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang"]
    path = shutil.which("zig")
    if path is None:
        pytest.skip("no cross compiler: pip install ziglang")
    return [path]


def write_tool(path: Path, *command: str) -> Path:
    """A program that passes its arguments on; zig's linker makes a bundle as it does a library."""
    words = " ".join(f"'{word}'" for word in command)
    path.write_text(f'#!/bin/bash\nexec {words} "${{@/#-bundle/-shared}}"\n')
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("zig")
    return {
        "C_COMPILER": write_tool(folder / "cc", *zig(), "cc", "-target", TARGET),
        "CXX_COMPILER": write_tool(folder / "c++", *zig(), "c++", "-target", TARGET),
        "AR": write_tool(folder / "ar", *zig(), "ar"),
        "RANLIB": write_tool(folder / "ranlib", *zig(), "ranlib"),
    }


@pytest.fixture(scope="module")
def build(
    tools: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The build folder, and what the compiler said."""
    folder = tmp_path_factory.mktemp("macos")
    cmake = find_tool("cmake")
    settings = SETTINGS | {f"CMAKE_{name}": str(path) for name, path in tools.items()}
    configured = run(
        *(cmake, "-S", ROOT, "-B", folder, "-G", "Ninja", f"-DPython_EXECUTABLE={sys.executable}"),
        f"-DCMAKE_MAKE_PROGRAM={find_tool('ninja')}",
        *(f"-D{name}={value}" for name, value in settings.items()),
    )
    assert configured.returncode == 0, configured.stdout[-5000:]
    targets = ("ggml_concurrent", "ggml-cpu", "c_tests")
    built = run(cmake, "--build", folder, "--target", *targets, timeout=1500)
    assert built.returncode == 0, built.stdout[-5000:]
    return folder, built


def load_commands(path: Path) -> dict[int, list[bytes]]:
    """The parts of a Mach-O header by kind; fails if it is no program or library for arm64."""
    data = path.read_bytes()
    magic, processor, _, _, n_commands = struct.unpack_from("<5I", data)
    assert (magic, processor) == (MACH_O, ARM64), path.name
    found: dict[int, list[bytes]] = {}
    at = 32
    for _ in range(n_commands):
        kind, size = struct.unpack_from("<2I", data, at)
        found.setdefault(kind, []).append(data[at : at + size])
        at += size
    return found


def text_of(command: bytes) -> str:
    (begin,) = struct.unpack_from("<I", command, 8)
    return command[begin:].rstrip(b"\0").decode()


def test_libraries_are_linked_and_found_beside_one_another(
    build: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    for name in LIBRARIES:
        commands = load_commands(build[0] / "ggml_concurrent" / "lib" / name)
        assert [text_of(c) for c in commands.get(RPATH, [])] == ["@loader_path"], name
        needed = {text_of(c) for c in commands[LOAD_DYLIB]}
        ours = {n for n in needed if n.startswith("@rpath/")}
        # nothing of the system but what every Mac has
        assert all(n.startswith("/usr/lib/libSystem") for n in needed - ours), needed
        assert {n.removeprefix("@rpath/") for n in ours} <= set(LIBRARIES)


def test_programs_and_modules_are_linked(
    build: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    programs = [name for name in PROGRAMS if name not in LINUX_ONLY]
    for name in [*programs, *(f"{module}.so" for module in MODULES)]:
        load_commands(build[0] / "tests" / name)


def test_our_code_has_no_warnings(build: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    ours = re.compile(rf"^{re.escape(str(ROOT))}/(csrc|tests)/.*warning:.*$", re.MULTILINE)
    assert [match[0] for match in ours.finditer(build[1].stdout)] == []


def test_bindings_compile(tools: dict[str, Path], tmp_path: Path) -> None:
    """The extension module's source, with the headers of the Python at hand."""
    generated = run(
        *(sys.executable, ROOT / "scripts" / "generate_bindings.py"),
        *("--ggml-include", ROOT / "vendor/ggml/include", "--csrc", ROOT / "csrc"),
        *("--out-dir", tmp_path),
    )
    assert generated.returncode == 0, generated.stdout
    folders = ("csrc", "csrc/include", "csrc/ggml", "vendor/ggml/include", "vendor/ggml/src")
    compiled = run(
        *(tools["C_COMPILER"], "-c", "-DPy_LIMITED_API=0x030A0000", tmp_path / "_ffi.c"),
        *(f"-I{ROOT / folder}" for folder in folders),
        *(f"-I{tmp_path}", f"-I{sysconfig.get_path('include')}", "-o", tmp_path / "_ffi.o"),
    )
    assert compiled.returncode == 0, compiled.stdout[-5000:]
