"""How a build and the scripts refuse what they cannot do: at once, in one message with a remedy."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tools import ROOT, find_tool, run

Configure = Callable[..., str]  # (definition..., VARIABLE=value...) -> CMake's output in one line


# --- CMake ---------------------------------------------------------------------------------------


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Configures the project in a fresh folder; one error is expected. Gives the whole output."""

    def run_cmake(*definitions: str, **environment: str) -> str:
        result = run(
            *(find_tool("cmake"), "-S", ROOT, "-B", tmp_path / "build", "-G", "Ninja"),
            *(
                f"-DCMAKE_MAKE_PROGRAM={find_tool('ninja')}",
                f"-DPython_EXECUTABLE={sys.executable}",
            ),
            *definitions,
            **environment,
        )
        assert result.returncode != 0, result.stdout
        assert result.stdout.count("CMake Error") == 1, result.stdout
        return " ".join(result.stdout.split())

    return run_cmake


@pytest.fixture
def ggml_tree(tmp_path: Path) -> Path:
    """What passes for a ggml source tree until it is built."""
    (tmp_path / "ggml" / "src").mkdir(parents=True)
    (tmp_path / "ggml" / "src" / "ggml-impl.h").write_text("")
    return tmp_path / "ggml"


def test_windows_is_refused(configure: Configure) -> None:
    output = configure("-DCMAKE_SYSTEM_NAME=Windows")
    assert "ggml-concurrent does not support Windows" in output
    assert "Windows Subsystem for Linux" in output


def test_old_cmake_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "old.cmake"
    script.write_text(f'set(CMAKE_VERSION 3.25.1)\ninclude("{ROOT}/CMakeLists.txt")\n')
    result = run(find_tool("cmake"), "-P", script)
    output = " ".join(result.stdout.split())
    assert result.returncode != 0
    assert "ggml-concurrent needs CMake 3.26 or newer; this is 3.25.1." in output
    assert "pip install cmake" in output


@pytest.mark.parametrize(("variable", "language"), [("CC", "C"), ("CXX", "CXX")])
def test_missing_compiler_is_refused(
    configure: Configure, ggml_tree: Path, variable: str, language: str
) -> None:
    output = configure(**{variable: "/nonexistent/compiler", "GGML_SOURCE_DIR": str(ggml_tree)})
    assert f"no {language} compiler was found" in output
    assert "apt install build-essential" in output


def test_unknown_cpu_variants_are_refused(configure: Configure) -> None:
    assert "it must be native or all" in configure("-DGGC_CPU_VARIANTS=fastest")


@pytest.mark.parametrize("through", ["option", "environment"])
def test_wrong_ggml_source_dir_is_refused(
    configure: Configure, tmp_path: Path, through: str
) -> None:
    if through == "option":
        output = configure(f"-DGGML_SOURCE_DIR={tmp_path}")
    else:
        output = configure(GGML_SOURCE_DIR=str(tmp_path))
    assert f"GGML_SOURCE_DIR is set to {tmp_path}, which is no ggml source tree" in output


@pytest.mark.parametrize("through", ["option", "environment"])
def test_ggml_source_dir_is_used(tmp_path: Path, ggml_tree: Path, through: str) -> None:
    script = tmp_path / "find.cmake"
    script.write_text(
        f'include("{ROOT}/vendor/ggml.cmake")\nggc_find_ggml(found)\nmessage("found ${{found}}")\n'
    )
    place = str(ggml_tree)
    definition = [f"-DGGML_SOURCE_DIR={place}"] if through == "option" else []
    other = "" if through == "environment" else "/nonexistent"
    environment = {"GGML_SOURCE_DIR": place if through == "environment" else other}
    result = run(find_tool("cmake"), *definition, "-P", script, **environment)
    assert (result.returncode, result.stdout) == (0, f"found {place}\n")


def test_failed_fetch_is_told_by_cmake(configure: Configure, tmp_path: Path) -> None:
    """The message of the fetching script is CMake's error, whole and alone."""
    output = configure(f"-DPython_EXECUTABLE={failing_python(tmp_path)}")
    assert "CMake Error at vendor/ggml.cmake" in output
    assert "ggml-concurrent: out of luck" in output


def failing_python(folder: Path) -> Path:
    """A Python that refuses to run the fetching script."""
    wrapper = folder / "python"
    wrapper.write_text(
        "#!/bin/sh\n"
        'case "$1" in *fetch_ggml.py) echo "ggml-concurrent: out of luck" >&2; exit 1;; esac\n'
        f'exec "{sys.executable}" "$@"\n'
    )
    wrapper.chmod(0o755)
    return wrapper


# --- scripts -------------------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone that holds the scripts alone: they end before they need more."""
    folder = tmp_path / "clone with spaces"
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    return folder


@pytest.mark.parametrize("script", ["demo", "test"])
def test_script_has_help(clone: Path, tmp_path: Path, script: str) -> None:
    result = run(clone / "scripts" / script, "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout.startswith(f"usage: scripts/{script}")
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize("script", ["demo", "test"])
def test_script_without_python(clone: Path, script: str) -> None:
    result = run(clone / "scripts" / script, PYTHON="/nonexistent/python")
    assert result.returncode == 1
    assert result.stdout.startswith("No Python was found as /nonexistent/python.")


def test_script_with_unfit_python(clone: Path, tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\necho "this Python is too old" >&2\nexit 1\n')
    old.chmod(0o755)
    result = run(clone / "scripts" / "demo", PYTHON=str(old))
    assert (result.returncode, result.stdout) == (1, "this Python is too old\n")


def test_script_without_compiler(clone: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "env"):
        (tools / name).symlink_to(find_tool(name))
    (clone / ".venv" / "bin").mkdir(parents=True)
    wrapper = clone / ".venv" / "bin" / "python"
    wrapper.write_text(f'#!{tools}/bash\nexec "{sys.executable}" "$@"\n')
    wrapper.chmod(0o755)
    result = run(clone / "scripts" / "demo", PATH=str(tools), CC="", CXX="")
    assert result.returncode == 1
    assert result.stdout.startswith("No C compiler was found. Install one")


@pytest.mark.parametrize(
    ("version", "name", "fits"),
    [((3, 9), "cpython", False), ((3, 10), "cpython", True), ((3, 11), "pypy", False)],
)
def test_python_is_checked(version: tuple[int, int], name: str, fits: bool) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.version_info = {(*version, 0, 'final', 0)!r}\n"
        f"sys.implementation.name = {name!r}\n"
        f"lacking = runpy.run_path({str(ROOT / 'scripts' / '_check_python.py')!r})['lacking']\n"
        "print(lacking())\n"
    )
    output = run(sys.executable, "-c", code).stdout
    assert ("needs CPython 3.10 or newer" not in output) == fits
