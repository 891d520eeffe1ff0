"""Fetching ggml: from a package index in a folder, so that no network is needed."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from tools import ROOT, load_script

SCRIPT = ROOT / "vendor" / "fetch_ggml.py"

# A source distribution that pip can ask for its metadata without installing anything.
PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "llama-cpp-python"
version = "0.3.36"
"""
BACKEND = """\
def prepare_metadata_for_build_wheel(directory, config_settings=None):
    import os
    name = "llama_cpp_python-0.3.36.dist-info"
    os.mkdir(os.path.join(directory, name))
    with open(os.path.join(directory, name, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: llama-cpp-python\\nVersion: 0.3.36\\n")
    return name
def build_wheel(directory, config_settings=None, metadata_directory=None):
    raise SystemExit("nothing may be built")
"""
UPSTREAM = {
    "pyproject.toml": PYPROJECT,
    "backend.py": BACKEND,
    "PKG-INFO": "Metadata-Version: 2.1\nName: llama-cpp-python\nVersion: 0.3.36\n",
    "vendor/llama.cpp/LICENSE": "MIT",
    "vendor/llama.cpp/src/llama.cpp": "not ggml",
    "vendor/llama.cpp/ggml/CMakeLists.txt": "project(ggml)",
    "vendor/llama.cpp/ggml/cmake/common.cmake": "# cmake",
    "vendor/llama.cpp/ggml/include/ggml.h": "// public",
    "vendor/llama.cpp/ggml/src/ggml-impl.h": "// internal",
    "vendor/llama.cpp/ggml/src/ggml-cpu/arch/x86/quants.c": "// deep",
    "vendor/llama.cpp/ggml/src/ggml-vulkan/ggml-vulkan.cpp": "// never built",
}
KEPT = {
    "CMakeLists.txt",
    "LICENSE",
    "cmake/common.cmake",
    "include/ggml.h",
    "pin.json",
    "src/ggml-cpu/arch/x86/quants.c",
    "src/ggml-impl.h",
}


fetch_ggml = load_script(SCRIPT)


@dataclasses.dataclass
class Index:
    """A folder that pip takes packages from, and a pin of what lies in it."""

    folder: Path
    pin: Path

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, str(SCRIPT), "--pin", str(self.pin), *map(str, arguments)]

    def environment(self, **changes: str) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
        return {**inherited, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.folder), **changes}

    def run(self, *arguments: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(**changes),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def index(tmp_path: Path) -> Index:
    folder = tmp_path / "index"
    folder.mkdir()
    archive = folder / "llama_cpp_python-0.3.36.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        for name, text in UPSTREAM.items():
            add_member(file, f"llama_cpp_python-0.3.36/{name}", text)
    pin = tmp_path / "pin.json"
    fields = json.loads((ROOT / "vendor" / "pin.json").read_text())
    fields["sha256"] = hashlib.sha256(archive.read_bytes()).hexdigest()
    pin.write_text(json.dumps(fields))
    return Index(folder, pin)


def add_member(archive: tarfile.TarFile, name: str, text: str) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(text.encode())
    archive.addfile(member, io.BytesIO(text.encode()))


def files_of(tree: Path) -> set[str]:
    return {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}


def assert_one_message(result: subprocess.CompletedProcess[str]) -> str:
    """The run failed with one line that speaks to a person; returns it."""
    assert result.returncode == 1
    assert not result.stdout
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("ggml-concurrent: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def assert_no_leftovers(folder: Path) -> None:
    assert not [path for path in folder.iterdir() if path.name.startswith(".ggml-")]


def test_repository_pin_is_valid() -> None:
    pin = fetch_ggml.read_pin(ROOT / "vendor" / "pin.json")
    assert pin.requirement == "llama-cpp-python==0.3.36"
    assert pin.ggml_version == "0.25.3"


def test_repository_tree_is_the_pinned_ggml() -> None:
    tree = ROOT / "vendor" / "ggml"
    pin = fetch_ggml.read_pin(ROOT / "vendor" / "pin.json")
    if not fetch_ggml.is_current(tree, pin):
        pytest.skip("vendor/ggml is not there: this build uses another ggml (GGML_SOURCE_DIR)")
    cmake = (tree / "CMakeLists.txt").read_text()
    version = [
        next(line for line in cmake.splitlines() if f"GGML_VERSION_{part}" in line).strip(")")
        for part in ("MAJOR", "MINOR", "PATCH")
    ]
    assert ".".join(line.split()[-1] for line in version) == pin.ggml_version
    licence = (ROOT / "vendor" / "LICENSE.ggml").read_text()
    assert (tree / "LICENSE").read_text() == licence, "vendor/LICENSE.ggml is not ggml's licence"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no valid pin"),
        ("[]", "no valid pin"),
        ('{"package": "llama-cpp-python"}', "no valid pin"),
        (
            json.dumps(
                dict.fromkeys(["package", "version", "sha256", "path", "ggml_version"], "12")
                | {"keep": []}
            ),
            "64 lower-case hex digits",
        ),
    ],
)
def test_broken_pin_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "pin.json").write_text(text)
    with pytest.raises(fetch_ggml.FetchError, match=reason):
        fetch_ggml.read_pin(tmp_path / "pin.json")


@pytest.mark.parametrize(
    ("member", "target"),
    [
        ("top/vendor/llama.cpp/LICENSE", "LICENSE"),
        ("top/vendor/llama.cpp/ggml/CMakeLists.txt", "CMakeLists.txt"),
        ("top/vendor/llama.cpp/ggml/src/ggml.c", "src/ggml.c"),
        ("top/vendor/llama.cpp/ggml/src/ggml-cpu/amx/mmq.cpp", "src/ggml-cpu/amx/mmq.cpp"),
        ("top/vendor/llama.cpp/ggml/src/ggml-opencl/kernels/a.cl", None),
        ("top/vendor/llama.cpp/src/llama.cpp", None),
        ("top/vendor/other/ggml/src/ggml.c", None),
        ("top/vendor/llama.cpp/ggml/src/ggml-cpu/../../../../passwd", None),
        ("top", None),
    ],
)
def test_what_is_kept(member: str, target: str | None) -> None:
    place = fetch_ggml.read_pin(ROOT / "vendor" / "pin.json").target_of(member)
    assert (None if place is None else str(place)) == target


def test_fetch_unpacks_what_is_kept(index: Index, tmp_path: Path) -> None:
    target = tmp_path / "vendor" / "ggml"
    result = index.run("--target", target)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{target}\n"
    assert files_of(target) == KEPT
    assert (target / "include/ggml.h").read_text() == "// public"
    assert_no_leftovers(target.parent)


def test_tree_is_reused_without_network(index: Index, tmp_path: Path) -> None:
    target = tmp_path / "ggml"
    assert index.run("--target", target).returncode == 0
    (target / "include/ggml.h").write_text("// touched")
    shutil.rmtree(index.folder)
    result = index.run("--target", target)
    assert (result.returncode, result.stdout) == (0, f"{target}\n")
    assert (target / "include/ggml.h").read_text() == "// touched"


def test_tree_of_another_pin_is_replaced(index: Index, tmp_path: Path) -> None:
    target = tmp_path / "ggml"
    assert index.run("--target", target).returncode == 0
    stamp = json.loads((target / "pin.json").read_text())
    (target / "pin.json").write_text(json.dumps({**stamp, "sha256": "0" * 64}))
    (target / "left-over.c").write_text("")
    assert index.run("--target", target).returncode == 0
    assert files_of(target) == KEPT
    assert_no_leftovers(tmp_path)


def test_half_a_tree_is_replaced(index: Index, tmp_path: Path) -> None:
    target = tmp_path / "ggml"
    target.mkdir()
    (target / "CMakeLists.txt").write_text("half")
    assert index.run("--target", target).returncode == 0
    assert files_of(target) == KEPT


def test_two_at_once(index: Index, tmp_path: Path) -> None:
    target = tmp_path / "vendor" / "ggml"
    runs = [
        subprocess.Popen(
            index.command("--target", target),
            env=index.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    results = [(*run.communicate(timeout=120), run.returncode) for run in runs]
    assert results == [(f"{target}\n", "", 0)] * len(runs)
    assert files_of(target) == KEPT
    assert_no_leftovers(target.parent)


def test_the_slower_of_two_keeps_the_tree_that_is_there(index: Index, tmp_path: Path) -> None:
    pin = fetch_ggml.read_pin(index.pin)
    archive = next(index.folder.iterdir())
    for name in ("fast", "slow"):
        (tmp_path / name).mkdir()
        fetch_ggml.unpack(archive, pin, tmp_path / name / "tree")
    target = tmp_path / "ggml"
    fetch_ggml.install(tmp_path / "fast/tree", target, pin)
    (target / "first").write_text("")
    fetch_ggml.install(tmp_path / "slow/tree", target, pin)
    assert files_of(target) == KEPT | {"first"}


def test_wrong_checksum(index: Index, tmp_path: Path) -> None:
    fields = json.loads(index.pin.read_text())
    right, wrong = fields["sha256"], "0" * 64
    index.pin.write_text(json.dumps({**fields, "sha256": wrong}))
    message = assert_one_message(index.run("--target", tmp_path / "ggml"))
    assert "wrong checksum" in message
    assert right in message
    assert wrong in message
    assert not (tmp_path / "ggml").exists()
    assert_no_leftovers(tmp_path)


def test_checksum_is_not_left_to_pip_alone(index: Index) -> None:
    pin = fetch_ggml.read_pin(index.pin)
    archive = next(index.folder.iterdir())
    fetch_ggml.check_hash(archive, pin)
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(fetch_ggml.FetchError, match="wrong checksum"):
        fetch_ggml.check_hash(archive, pin)


def test_no_network(index: Index, tmp_path: Path) -> None:
    start = time.monotonic()
    result = index.run(
        "--target",
        tmp_path / "ggml",
        PIP_NO_INDEX="0",
        PIP_FIND_LINKS="",
        PIP_INDEX_URL="https://127.0.0.1:9/simple",  # the discard port: refused at once
        PIP_NO_CACHE_DIR="1",
    )
    message = assert_one_message(result)
    assert "could not be reached" in message
    assert "GGML_SOURCE_DIR" in message
    assert time.monotonic() - start < 30


def test_index_without_the_package(index: Index, tmp_path: Path) -> None:
    next(index.folder.iterdir()).unlink()
    message = assert_one_message(index.run("--target", tmp_path / "ggml"))
    assert "pip could not download llama-cpp-python==0.3.36" in message


@pytest.mark.parametrize(
    "setting", ["PIP_CONSTRAINT", "PIP_REQUIRE_HASHES", "PIP_DRY_RUN", "PIP_ONLY_BINARY"]
)
def test_settings_of_a_surrounding_pip_do_no_harm(
    index: Index, tmp_path: Path, setting: str
) -> None:
    constraint = tmp_path / "constraint.txt"
    constraint.write_text("llama-cpp-python==0.0.1\n")
    value = {"PIP_CONSTRAINT": str(constraint), "PIP_ONLY_BINARY": ":all:"}.get(setting, "1")
    result = index.run("--target", tmp_path / "ggml", **{setting: value})
    assert (result.returncode, result.stderr) == (0, "")


def test_no_pip(
    index: Index,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    status = fetch_ggml.main(["--pin", str(index.pin), "--target", str(tmp_path / "ggml")])
    assert status == 1
    assert "needs pip" in capsys.readouterr().err


def test_read_only_folder(index: Index, tmp_path: Path) -> None:
    # A file in the folder's place stops the superuser too, whom permissions do not.
    (tmp_path / "file").write_text("")
    message = assert_one_message(index.run("--target", tmp_path / "file" / "ggml"))
    assert "cannot be unpacked" in message
    assert "GGML_SOURCE_DIR" in message


def test_fallback_for_a_read_only_folder(index: Index, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fallback = tmp_path / "build" / "ggml"
    places = ("--target", tmp_path / "file" / "ggml", "--fallback", fallback)
    assert index.run(*places).stdout == f"{fallback}\n"
    shutil.rmtree(index.folder)
    assert index.run(*places).stdout == f"{fallback}\n"


def test_archive_cannot_write_outside(index: Index, tmp_path: Path) -> None:
    archive = tmp_path / "hostile.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        for name, text in UPSTREAM.items():
            add_member(file, f"top/{name}", text)
        link = tarfile.TarInfo("top/vendor/llama.cpp/ggml/src/link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        file.addfile(link)
        add_member(file, "top/vendor/llama.cpp/ggml/src/ggml-cpu/../../../escaped", "")
        add_member(file, "/vendor/llama.cpp/ggml/src/absolute.c", "")
    tree = tmp_path / "deep" / "er" / "tree"
    fetch_ggml.unpack(archive, fetch_ggml.read_pin(index.pin), tree)
    assert files_of(tree) == KEPT | {"src/absolute.c"}
    assert not list(tmp_path.rglob("escaped"))


def test_archive_without_ggml(index: Index, tmp_path: Path) -> None:
    archive = tmp_path / "empty.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        add_member(file, "top/README.md", "")
    with pytest.raises(fetch_ggml.FetchError, match="holds no ggml"):
        fetch_ggml.unpack(archive, fetch_ggml.read_pin(index.pin), tmp_path / "tree")
