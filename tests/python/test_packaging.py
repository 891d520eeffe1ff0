"""What is shipped: the source distribution and the wheel. Both are built here, without network."""

from __future__ import annotations

import os
import re
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from tools import ROOT, find_tool, run

DROP_IN = "ggml-concurrent-dropin"
LIBRARIES = {"ggml-concurrent", "ggc-ggml", "ggc-ggml-base", "ggc-ggml-cpu"}
LIBRARIES |= {DROP_IN} if sys.platform == "linux" else set()
# Any attempt to reach a package index fails, and fails at once.
OFFLINE = {
    "PIP_NO_INDEX": "1",
    "PIP_INDEX_URL": "https://127.0.0.1:9/simple",
    "PIP_FIND_LINKS": "",
    "PIP_NO_CACHE_DIR": "1",
}


def build_package(kind: str, source: Path, out: Path, **environment: str) -> Path:
    """Build "sdist" or "wheel" of ``source`` with the tools of this environment; the file made."""
    for module in ("build", "scikit_build_core", "cffi"):
        pytest.importorskip(module)
    find_tool("cmake"), find_tool("ninja")
    result = run(
        *(sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", out, source),
        PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        **environment,
    )
    assert result.returncode == 0, result.stdout[-5000:]
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_package("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the source distribution, with no package index to be reached."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder)  # noqa: S202 - our own
    (source,) = folder.iterdir()
    return build_package("wheel", source, tmp_path_factory.mktemp("wheel"), **OFFLINE)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)  # noqa: S202 - our own
    return folder


# --- source distribution -------------------------------------------------------------------------


@pytest.mark.slow
def test_sdist_carries_ggml_and_its_licence(sdist: Path) -> None:
    names = names_in(sdist)
    assert {"LICENSE", "vendor/LICENSE.ggml", "vendor/pin.json"} <= names
    assert {
        "vendor/ggml/CMakeLists.txt",
        "vendor/ggml/LICENSE",
        "vendor/ggml/include/ggml.h",
        "vendor/ggml/src/ggml-impl.h",
        "vendor/ggml/src/ggml-cpu/ggml-cpu.c",
        "vendor/ggml/src/ggml-cuda/ggml-cuda.cu",
        "vendor/ggml/src/ggml-metal/CMakeLists.txt",
    } <= names


@pytest.mark.slow
def test_sdist_carries_no_more_than_is_built(sdist: Path) -> None:
    names = names_in(sdist)
    backends = {name.split("/")[3] for name in names if name.startswith("vendor/ggml/src/ggml-")}
    folders = {name for name in backends if "." not in name}
    assert folders == {"ggml-cpu", "ggml-cuda", "ggml-metal"}
    tops = {name.split("/")[0] for name in names}
    assert tops <= {
        *("CHANGELOG.md", "CMakeLists.txt", "CONTRIBUTING.md", "LICENSE", "PKG-INFO", "README.md"),
        *(".clang-format", ".editorconfig", ".pre-commit-config.yaml", "pyproject.toml"),
        *("csrc", "docs", "python", "scripts", "tests", "vendor"),
    }
    assert not {name for name in names if name.endswith((".so", ".o", ".pyc", ".gguf"))}
    assert sdist.stat().st_size < 3_000_000


def names_in(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        return {member.name.split("/", 1)[1] for member in archive if member.isfile()}


# --- wheel ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_wheel_is_abi3(wheel: Path, installed: Path) -> None:
    assert "-cp310-abi3-" in wheel.name
    (metadata,) = installed.glob("*.dist-info/WHEEL")
    assert "Tag: cp310-abi3-" in metadata.read_text()
    assert [path.name for path in (installed / "ggml_concurrent").glob("_ffi*")] == ["_ffi.abi3.so"]


@pytest.mark.slow
def test_wheel_carries_libraries_licences_and_types(installed: Path) -> None:
    package = installed / "ggml_concurrent"
    assert {library_name(path) for path in (package / "lib").iterdir()} == LIBRARIES
    assert (package / "py.typed").exists()
    licences = {path.name for path in installed.glob("*.dist-info/licenses/**/LICENSE*")}
    assert licences == {"LICENSE", "LICENSE.ggml"}
    (metadata,) = installed.glob("*.dist-info/METADATA")
    assert "License-Expression: MIT" in metadata.read_text()


@pytest.mark.slow
def test_wheel_carries_only_the_package(wheel: Path, installed: Path) -> None:
    assert {path.name.split("-")[0] for path in installed.iterdir()} == {"ggml_concurrent"}
    strays = {
        path.relative_to(installed)
        for path in (installed / "ggml_concurrent").rglob("*")
        if path.is_file() and path.suffix not in {".py", ".typed", ".so", ".dylib"}
    }
    assert not strays
    assert wheel.stat().st_size < 5_000_000


@pytest.mark.slow
def test_libraries_have_private_names(installed: Path) -> None:
    """A library of ggml's own name would be taken for another package's, or that one for ours."""
    readelf = readelf_or_skip()
    package = installed / "ggml_concurrent"
    for path in [*(package / "lib").iterdir(), package / "_ffi.abi3.so"]:
        dynamic = run(readelf, "--dynamic", "--wide", path).stdout
        soname = re.findall(r"\(SONAME\).*\[(.+)\]", dynamic)
        needed = re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic)
        assert soname in ([], [path.name]), path.name  # modules that nothing links to have none
        ggmls = [name for name in needed if "ggml" in name]
        assert {library_name(Path(name)) for name in ggmls} <= LIBRARIES, path.name
        runpath = re.findall(r"\(R(?:UN)?PATH\).*\[(.+)\]", dynamic)
        folder = [] if library_name(path) == DROP_IN else ["$ORIGIN"]  # it needs none of ours
        assert runpath == (["$ORIGIN/lib"] if path.name.startswith("_ffi") else folder)


@pytest.mark.slow
def test_library_shows_only_the_public_functions(installed: Path) -> None:
    library = installed / "ggml_concurrent" / "lib" / "libggml-concurrent.so"
    table = run(readelf_or_skip(), "--dyn-syms", "--wide", library).stdout
    rows = [line.split() for line in table.splitlines()]
    defined = {row[7] for row in rows if len(row) == 8 and row[4] == "GLOBAL" and row[6] != "UND"}
    declared = set()
    for header in (ROOT / "csrc").rglob("*.h"):
        declared |= set(re.findall(r"^GGC_API [^;(]*?(\w+)\(", header.read_text(), re.MULTILINE))
    assert "ggml_graph_find_concurrency" in defined
    assert defined == declared


@pytest.mark.slow
def test_ggml_says_where_it_is_from(installed: Path) -> None:
    """Of the git repository around it, ggml would take our commit for its own."""
    library = installed / "ggml_concurrent" / "lib" / "libggc-ggml-base.so"
    assert b"llama-cpp-python-0.3.36\0" in library.read_bytes()


def library_name(path: Path) -> str:
    return path.name.removeprefix("lib").removesuffix(".so").removesuffix(".dylib")


def readelf_or_skip() -> str:
    if sys.platform != "linux":
        pytest.skip("reads ELF files: Linux only")
    return find_tool("readelf")


@pytest.mark.slow
def test_wheel_works_away_from_the_sources(installed: Path, tmp_path: Path) -> None:
    """Outside the clone; -S keeps an editable install of the project out of the way."""
    numpy = pytest.importorskip("numpy")
    packages = Path(numpy.__file__).parents[1]
    code = (
        "import ggml_concurrent as ggc, numpy as np\n"
        "with ggc.Graph() as g:\n"
        "    x = g.input('x', 'f32', ne=(3,))\n"
        "    g.output(g.add(x, x), name='y')\n"
        "    with ggc.Runner(g) as r:\n"
        "        print(ggc.__file__, r.run(x=np.arange(3, dtype=np.float32))['y'].tolist())\n"
    )
    path = os.pathsep.join([str(installed), str(packages)])
    result = run(sys.executable, "-S", "-c", code, cwd=tmp_path, PYTHONPATH=path)
    init = installed / "ggml_concurrent" / "__init__.py"
    assert (result.returncode, result.stdout) == (0, f"{init} [0.0, 2.0, 4.0]\n")
