"""`ggml-concurrent doctor`, and the reader of ELF files under it."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from tools import run

import ggml_concurrent as ggc
from ggml_concurrent.elf import read_elf
from ggml_concurrent.errors import FormatError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the drop-in is for Linux")

TRUE = Path(shutil.which("true") or "/bin/true")


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ggml_concurrent", "doctor", *arguments],
        check=False, capture_output=True, text=True, timeout=120, env={**os.environ, **environment},
    )  # fmt: skip


def compile_c(folder: Path, text: str, name: str, *arguments: str) -> Path:
    source, result = folder / f"{name}.c", folder / name
    source.write_text(text)
    built = run(os.environ.get("CC", "cc"), "-o", result, source, *arguments)
    if built.returncode and "-static" in arguments:
        pytest.skip("this compiler links nothing statically: libc.a is missing")
    assert built.returncode == 0, built.stdout
    return result


#
# ELF
#


def test_a_program() -> None:
    elf = read_elf(TRUE)
    assert elf.is_dynamic
    assert "ld" in elf.interpreter
    assert any(name.startswith("libc.") for name in elf.needed)
    assert elf.imports
    assert elf.soname == ""


def test_a_library() -> None:
    elf = read_elf(ggc.plugin_path())
    assert elf.interpreter == ""
    assert {"ggc_dropin_attach", "ggml_backend_init", "ggml_backend_sched_new"} <= elf.exports
    assert "dlsym" in elf.imports


def test_the_drop_in_needs_the_c_library_alone_and_hides_what_is_inside() -> None:
    elf = read_elf(ggc.plugin_path())
    assert all(n.split(".")[0] in ("libc", "libm", "ld-linux-x86-64", "ld-linux-aarch64", "libdl",
                                   "libpthread") for n in elf.needed), elf.needed  # fmt: skip
    shown = {
        "ggc_dropin_attach",
        "ggc_dropin_attach_backend",
        "ggc_dropin_detach",
        "ggc_dropin_report",
        "ggml_backend_cpu_set_n_threads",
        "ggml_backend_init",
        "ggml_backend_init_by_type",
        "ggml_backend_sched_new",
    }
    own = {name for name in elf.exports if name.startswith("gg")}
    assert own == shown


def test_what_is_no_elf_file(tmp_path: Path) -> None:
    text = tmp_path / "text"
    for data, reason in (
        (b"hello", "no ELF file"),
        (b"", "no ELF file"),
        (b"\x7fELF\x01\x01" + bytes(60), "not for a 64-bit little-endian machine"),
        (b"\x7fELF\x02\x01", "the file ends early"),
    ):
        text.write_bytes(data)
        with pytest.raises(FormatError, match=reason):
            read_elf(text)


def test_damaged_files_are_refused_or_read(tmp_path: Path) -> None:
    whole = TRUE.read_bytes()
    rng = random.Random(1)
    damaged = tmp_path / "damaged"
    refused = 0
    for i in range(300):
        data = bytearray(whole)
        if i % 3 == 0:
            data = data[: rng.randrange(len(data))]
        elif i % 3 == 1:
            for _ in range(8):
                data[rng.randrange(64, min(len(data), 1200))] = rng.randrange(256)
        else:  # the header's own numbers
            struct.pack_into("<Q", data, 32, rng.randrange(1 << 63))
        damaged.write_bytes(data)
        try:
            read_elf(damaged)
        except FormatError:
            refused += 1
    assert refused > 100


#
# doctor
#


def test_this_python() -> None:
    result = doctor("--json", GGML_CONCURRENT="off")
    found = json.loads(result.stdout)
    assert found["subject"] == sys.executable
    assert result.returncode == (0 if found["can"] else 1)
    assert "GGML_CONCURRENT=off" in found["facts"]
    assert any("what is found fastest" in fact for fact in found["facts"])


def test_an_environment_with_a_runner(tmp_path: Path) -> None:
    pytest.importorskip("libggml", reason="pip install libggml-python==0.20.2.post1")
    (tmp_path / "llama_cpp.py").write_text(
        "import ctypes\nfrom dropin_host import Host\nHOST = Host()\n__version__ = '1.2'\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parent)])
    result = doctor(sys.executable, PYTHONPATH=path)
    assert result.returncode == 0, result.stderr
    assert f"{sys.executable}: can be run concurrently" in result.stdout
    assert "package llama_cpp 1.2" in result.stdout
    assert "ggml 0.20.2" in result.stdout
    assert "all layouts agree; devices CPU" in result.stdout


def test_a_package_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "llama_cpp.py").write_text("raise RuntimeError('no shared library')\n")
    result = doctor(sys.executable, PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert "package llama_cpp cannot be imported: RuntimeError('no shared library')" in (
        result.stdout
    )


def test_an_environments_folder(tmp_path: Path) -> None:
    result = doctor(str(tmp_path))
    assert result.returncode == 2
    assert "without bin/python" in result.stderr
    assert doctor(str(Path(sys.prefix))).returncode in (0, 1)


def test_a_program_without_a_ggml() -> None:
    result = doctor(str(TRUE))
    assert result.returncode == 1
    assert "it is linked dynamically" in result.stdout
    assert f"try: ggml-concurrent exec -- {TRUE}" in result.stdout


def test_a_program_that_makes_schedulers(tmp_path: Path) -> None:
    libggml = pytest.importorskip("libggml", reason="pip install libggml-python==0.20.2.post1")
    assert libggml
    from dropin_host import library_folder

    folder = library_folder()
    linked = [str(folder / f"lib{name}.so.0") for name in ("ggml", "ggml-cpu", "ggml-base")]
    text = (
        "void * ggml_backend_sched_new(void);\n"
        "int main(void) { return ggml_backend_sched_new() != 0; }\n"
    )
    program = compile_c(tmp_path, text, "program", *linked, f"-Wl,-rpath,{folder}")
    result = doctor(str(program))
    assert result.returncode == 0, result.stdout
    assert f"{program} makes schedulers, which can be taken hold of" in result.stdout
    assert f"ggml-concurrent exec -- {program}" in result.stdout


def test_a_static_program(tmp_path: Path) -> None:
    program = compile_c(tmp_path, "int main(void) { return 0; }", "static", "-static")
    result = doctor(str(program))
    assert result.returncode == 1
    assert f"{program} is linked statically" in result.stdout
    assert "BUILD_SHARED_LIBS=ON" in result.stdout


def test_a_script(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(f"#!{sys.executable}\n")
    assert "it is a script" in doctor(str(script)).stdout


def test_what_cannot_be_looked_at(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    for target, reason in ((text, "no ELF file"), (tmp_path / "none", "No such file")):
        result = doctor(str(target))
        assert result.returncode == 2
        assert reason in result.stderr
        assert len(result.stderr.splitlines()) == 1
