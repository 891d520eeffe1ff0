"""`ggml-concurrent doctor`, and the reader of ELF files under it."""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from tools import check_static, run

import ggml_concurrent as ggc
from ggml_concurrent import doctor as doctors
from ggml_concurrent.elf import _Reader, read_elf
from ggml_concurrent.errors import FormatError
from ggml_concurrent.launch import obstacle

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
    if any(word.startswith("-static") for word in arguments):
        check_static(built)
    assert built.returncode == 0, built.stdout
    return result


#
# ELF
#


def test_a_program() -> None:
    elf = read_elf(TRUE)
    assert not elf.is_library
    assert elf.machine == platform.machine().replace("_", "-").replace("aarch64", "arm64")
    assert "ld" in elf.interpreter
    assert any(name.startswith("libc.") for name in elf.needed)
    assert elf.imports
    assert elf.soname == ""


def test_a_library() -> None:
    elf = read_elf(ggc.plugin_path())
    assert elf.interpreter == ""
    assert elf.is_library
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


def test_names_of_libraries_and_where_they_are_looked_for(tmp_path: Path) -> None:
    library = compile_c(
        tmp_path, "int f(void) { return 1; } static int g; int * h(void) { return &g; }", "libf.so",
        "-shared", "-fPIC", "-Wl,-soname,libf.so.7", "-Wl,-rpath,/nowhere:$ORIGIN",
    )  # fmt: skip
    elf = read_elf(library)
    assert (elf.soname, elf.runpath) == ("libf.so.7", "/nowhere:$ORIGIN")
    assert {"f", "h"} <= elf.exports
    assert "g" not in elf.exports
    plain = compile_c(tmp_path, "int f(void); int main(void) { return f(); }", "user", str(library))
    user = read_elf(plain)
    assert "libf.so.7" in user.needed
    assert "f" in user.imports
    assert not user.is_library
    for style in ("gnu", "sysv"):  # the two tables that tell how many symbols there are
        other = compile_c(tmp_path, "int f(void) { return 1; }", f"lib{style}.so", "-shared",
                          "-fPIC", f"-Wl,--hash-style={style}")  # fmt: skip
        assert "f" in read_elf(other).exports
        assert read_elf(other).is_library


def test_a_static_program_that_can_lie_anywhere_is_no_library(tmp_path: Path) -> None:
    program = compile_c(tmp_path, "int main(void) { return 0; }", "pie", "-static-pie")
    assert not read_elf(program).is_library
    assert read_elf(program).interpreter == ""


def test_damaged_files_are_refused_or_read(tmp_path: Path) -> None:
    whole = TRUE.read_bytes()
    segments = _Reader(TRUE, whole)  # type: ignore[arg-type]
    segments.read_segments()
    rng = random.Random(1)
    damaged = tmp_path / "damaged"
    refused = 0
    for i in range(1000):
        data = bytearray(whole)
        if i % 3 == 0:
            data = data[: rng.randrange(len(data))]
        elif i % 3 == 1:
            for _ in range(8):
                data[rng.randrange(64, min(len(data), 1200))] = rng.randrange(256)
        else:  # the numbers of the header and of the dynamic section
            at, _ = segments.segment(2)
            place = rng.choice([32, 54, 56, *(at + 8 * k for k in range(1, 50, 2))])
            struct.pack_into("<Q", data, place, rng.choice([rng.randrange(1 << 16), (1 << 64) - 1]))
        damaged.write_bytes(data)
        try:
            read_elf(damaged)
        except FormatError:
            refused += 1
    assert 300 < refused < 1000


#
# doctor
#


def test_this_python() -> None:
    result = doctor("--json", GGML_CONCURRENT="off")
    found = json.loads(result.stdout)
    assert found["subject"] == sys.executable
    assert result.returncode == (0 if found["can"] else 1)
    assert "GGML_CONCURRENT=off: graphs go through as they are" in found["facts"]
    assert f"Python {platform.python_version()}" in found["facts"]
    assert any("what is found fastest" in fact for fact in found["facts"])


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing in it, not even this package."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    made = run(sys.executable, "-m", "venv", "--without-pip", folder)
    assert made.returncode == 0, made.stdout
    return folder


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


def test_a_package_that_cannot_be_imported(tmp_path: Path, bare: Path) -> None:
    (tmp_path / "llama_cpp.py").write_text("raise RuntimeError('no shared library')\n")
    result = doctor(str(bare), PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert "package llama_cpp cannot be loaded: RuntimeError: no shared library" in result.stdout
    assert "put right what keeps it from being loaded" in result.stdout


def test_a_package_that_ends_the_process(tmp_path: Path, bare: Path) -> None:
    for code, ending in (
        ("import os; os.kill(os.getpid(), 11)", "was ended by signal 11"),
        ("import os; os._exit(5)", "ended with status 5"),
        ("import sys; sys.exit(4)", "package llama_cpp cannot be loaded: SystemExit: 4"),
    ):
        (tmp_path / "llama_cpp.py").write_text(code)
        result = doctor(str(bare), PYTHONPATH=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")
        assert result.returncode == 1
        assert ending in result.stdout, result.stdout


def test_a_package_that_takes_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llama_cpp.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctors, "_TIMEOUT", 4.0)
    facts = "\n".join(doctors.examine(None).facts)
    assert "package llama_cpp: the process that tried it did not answer within 4 s" in facts


def test_a_package_that_prints_and_loads_nothing(tmp_path: Path) -> None:
    (tmp_path / "llama_cpp.py").write_text(
        "import atexit\nprint('{}')\natexit.register(print, '{}')\n__version__ = '3'\n"
    )
    result = doctor(sys.executable, PYTHONPATH=str(tmp_path))
    assert "package llama_cpp 3 has loaded no ggml with exported functions" in result.stdout


def distribution(folder: Path) -> Path:
    """A package that nobody has heard of and that ships three libraries; where they belong."""
    package, info = folder / "unheard_of", folder / "unheard_of-4.5.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text("")
    names = ["__init__.py", *(f"libggml{part}.so.0" for part in ("", "-base", "-cpu"))]
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unheard-of\nVersion: 4.5\n")
    (info / "RECORD").write_text("".join(f"unheard_of/{name},,\n" for name in names))
    return package


def test_what_any_package_ships(tmp_path: Path) -> None:
    pytest.importorskip("libggml", reason="pip install libggml-python==0.20.2.post1")
    from dropin_host import library_folder

    package = distribution(tmp_path)
    for part in ("", "-base", "-cpu"):
        shutil.copy(library_folder() / f"libggml{part}.so.0", package)
    result = doctor(sys.executable, PYTHONPATH=str(tmp_path))
    assert result.returncode == 0
    assert "package unheard-of 4.5\n" in result.stdout
    assert f"ggml 0.20.2 in {package / 'libggml.so.0'}: all layouts agree" in result.stdout
    (package / "libggml-base.so.0").write_text("damaged")
    result = doctor(sys.executable, PYTHONPATH=str(tmp_path))
    assert "package unheard-of 4.5 cannot be loaded: " in result.stdout
    assert "libggml-base.so.0: file too short" in result.stdout


def test_libraries_that_do_not_find_each_other(tmp_path: Path, bare: Path) -> None:
    package = distribution(tmp_path)
    base = compile_c(package, "int f(void) { return 1; }", "libggml-base.so.0", "-shared", "-fPIC",
                     "-Wl,-soname,libggml-base.so.0")  # fmt: skip
    text = "int f(void); int ggml_backend_dev_get(void) { return f(); }"
    ggml = compile_c(package, text, "libggml.so.0", "-shared", "-fPIC", str(base))
    result = doctor(str(bare), PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert f"ggml of an unknown version in {ggml}: left alone, it has no ggml_" in result.stdout


def test_what_is_preloaded_here_is_no_part_of_what_is_looked_at(tmp_path: Path, bare: Path) -> None:
    text = "int ggml_backend_dev_get; int ggml_backend_sched_new;"
    other = str(compile_c(tmp_path, text, "libother.so", "-shared", "-fPIC"))
    assert "it is linked with no ggml" in doctor(str(TRUE), LD_PRELOAD=other).stdout
    (tmp_path / "llama_cpp.py").write_text("")
    result = doctor(str(bare), LD_PRELOAD=other, PYTHONPATH=str(tmp_path))
    assert "package llama_cpp has loaded no ggml with exported functions" in result.stdout
    assert f"LD_PRELOAD={other}" in result.stdout


def test_another_python_without_this_package(bare: Path) -> None:
    for target in (bare, bare / "bin" / "python"):
        result = doctor(str(target))
        assert result.returncode == 1
        assert result.stdout.startswith(f"{bare / 'bin' / 'python'}: cannot be run concurrently\n")
        assert "no package here brings a ggml along" in result.stdout
        assert "install llama-cpp-python" in result.stdout


def test_what_variables_say(tmp_path: Path) -> None:
    variables = {
        "GGML_CONCURRENT": ("sometimes", "expected off, auto, eager or always; taken for auto"),
        "GGML_CONCURRENT_STREAMS": ("65", "expected a number from 1 to 64; left out"),
        "GGML_CONCURRENT_STREEMS": ("2", "there is no such variable"),
        "GGML_CONCURRENT_QUIET": ("1", "nothing is said"),
        "GGML_BACKEND_PATH": (str(ggc.plugin_path()), "the drop-in"),
        "GGML_CUDA_GRAPH_OPT": ("1", "on CUDA, streams are ggml's own affair then"),
    }
    result = doctor(**{name: value for name, (value, _) in variables.items()})
    assert result.stderr == ""
    for name, (value, meaning) in variables.items():
        assert f"  {name}={value}: {meaning}\n" in result.stdout


def test_where_nothing_can_be_kept(tmp_path: Path) -> None:
    for folder, told in (
        ("", "there is no cache folder"),
        (str(tmp_path / "none" / "none"), f"{tmp_path / 'none'} cannot be written to"),
        (str(tmp_path / "new"), f"is kept in {tmp_path / 'new'}"),
    ):
        assert told in doctor(GGML_CONCURRENT_CACHE=folder).stdout
    assert list(tmp_path.iterdir()) == [], "it makes nothing"


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
        "int ggml_backend_dev_get(unsigned long);\n"
        "int main(void) { return ggml_backend_sched_new() != 0 || ggml_backend_dev_get(0); }\n"
    )
    program = compile_c(tmp_path, text, "program", *linked, f"-Wl,-rpath,{folder}")
    result = doctor(str(program))
    assert result.returncode == 0, result.stdout
    told = f"{program} calls ggml_backend_sched_new, where preloading takes hold"
    assert told in result.stdout
    assert f"{folder / 'libggml.so.0'} has ggml's devices" in result.stdout
    assert result.stdout.endswith(f"  ggml-concurrent exec -- {program}\n")


def test_schedulers_without_devices_are_not_enough(tmp_path: Path) -> None:
    base = compile_c(tmp_path, "int ggml_backend_sched_new(void) { return 0; }", "libbase.so",
                     "-shared", "-fPIC")  # fmt: skip
    text = "int ggml_backend_sched_new(void); int main(void) { return ggml_backend_sched_new(); }"
    result = doctor(str(compile_c(tmp_path, text, "program", str(base))))
    assert result.returncode == 1
    assert "where preloading takes hold" in result.stdout
    assert "it is linked with no ggml" in result.stdout


# A ggml in one file with a program, as far as symbols go.
INSIDE = """
int ggml_backend_dev_get(void) { return 1; }
int ggml_backend_sched_new(void) { return 1; }
int main(void) { return ggml_backend_sched_new(); }
"""


def test_a_program_that_has_its_ggml_within(tmp_path: Path) -> None:
    program = compile_c(tmp_path, INSIDE, "program", "-rdynamic")
    result = doctor(str(program))
    assert result.returncode == 1
    assert f"{program} has ggml's devices" in result.stdout
    assert "it calls ggml within itself, and preloading does not see that" in result.stdout


def test_a_program_that_loads_its_backends(tmp_path: Path) -> None:
    ggml = compile_c(
        tmp_path, "int ggml_backend_load_all(void) { return 0; } int ggml_backend_dev_get;",
        "libggml.so", "-shared", "-fPIC",
    )  # fmt: skip
    text = "int ggml_backend_load_all(void); int main(void) { return ggml_backend_load_all(); }"
    program = compile_c(tmp_path, text, "program", str(ggml))
    result = doctor(str(program))
    assert result.returncode == 0
    assert f"{program} loads backends while it runs" in result.stdout
    assert f"GGML_BACKEND_PATH=$(ggml-concurrent plugin-path) {program}\n" in result.stdout


@pytest.mark.parametrize("is_linked", [False, True])
def test_libllama_loads_backends_only_where_none_is_linked(tmp_path: Path, is_linked: bool) -> None:
    shared = ("-shared", "-fPIC", "-Wl,--no-as-needed", f"-Wl,-rpath,{tmp_path}")
    cpu = compile_c(tmp_path, "int x;", "libggml-cpu.so", *shared, "-Wl,-soname,libggml-cpu.so")
    text = "int ggml_backend_load_all(void) { return 0; } int ggml_backend_dev_get;"
    ggml = compile_c(tmp_path, text, "libggml.so", *shared, *([str(cpu)] if is_linked else []))
    text = (
        "int ggml_backend_load_all(void);\n"
        "int llama_backend_init(void) { return ggml_backend_load_all(); }\n"
    )
    llama = compile_c(tmp_path, text, "libllama.so", *shared, str(ggml))
    text = "int llama_backend_init(void); int main(void) { return llama_backend_init(); }"
    result = doctor(str(compile_c(tmp_path, text, "program", str(llama), str(ggml))))
    assert result.returncode == (1 if is_linked else 0)
    assert (f"{llama} loads backends while it runs" in result.stdout) is not is_linked


def test_a_program_whose_libraries_are_missing(tmp_path: Path) -> None:
    library = compile_c(tmp_path, "int f(void) { return 1; }", "libgone.so", "-shared", "-fPIC",
                        "-Wl,-soname,libgone.so")  # fmt: skip
    text = "int f(void); int main(void) { return f(); }"
    program = compile_c(tmp_path, text, "program", str(library), "-Wl,-rpath,/nowhere")
    library.unlink()
    result = doctor(str(program))
    assert result.returncode == 1
    assert "libgone.so is not found, nor in /nowhere" in result.stdout
    assert "it does not start as it is" in result.stdout


def test_a_library_that_needs_a_newer_c_library(tmp_path: Path) -> None:
    library = compile_c(tmp_path, "int f(void) { return 1; }", "libnew.so", "-shared", "-fPIC",
                        "-Wl,-soname,libnew.so", f"-Wl,--version-script={versions(tmp_path, 9)}",
                        )  # fmt: skip
    text = "int f(void); int main(void) { return f(); }"
    program = compile_c(tmp_path, text, "program", str(library), f"-Wl,-rpath,{tmp_path}")
    assert "it is linked with no ggml" in doctor(str(program)).stdout
    compile_c(tmp_path, "int f(void) { return 1; }", "libnew.so", "-shared", "-fPIC",
              "-Wl,-soname,libnew.so", f"-Wl,--version-script={versions(tmp_path, 8)}",
              )  # fmt: skip
    result = doctor(str(program))
    assert result.returncode == 1
    assert "version `NEW_9' not found (required by" in result.stdout


def versions(folder: Path, number: int) -> Path:
    script = folder / "versions"
    script.write_text(f"NEW_{number} {{ global: f; local: *; }};\n")
    return script


def test_a_library_is_looked_at_as_one(tmp_path: Path) -> None:
    result = doctor(str(ggc.plugin_path()))
    assert "it is a library" in result.stdout
    assert result.returncode == 1


def test_a_program_for_another_machine(tmp_path: Path) -> None:
    data = bytearray(TRUE.read_bytes())
    struct.pack_into("<H", data, 18, 243)
    other = tmp_path / "other"
    other.write_bytes(data)
    result = doctor(str(other))
    assert result.returncode == 1
    assert f"{other} is for riscv64, and the drop-in here for" in result.stdout


def test_a_static_program(tmp_path: Path) -> None:
    program = compile_c(tmp_path, "int main(void) { return 0; }", "static", "-static")
    result = doctor(str(program))
    assert result.returncode == 1
    assert f"{program} is linked statically" in result.stdout
    assert "BUILD_SHARED_LIBS=ON" in result.stdout


def test_a_script(tmp_path: Path) -> None:
    script = tmp_path / "script"
    for line, facts in (
        (sys.executable, (f"Python {platform.python_version()}",)),
        (f"/usr/bin/env -S PATH={os.environ['PATH']} sh", ("it is linked dynamically",)),
    ):
        script.write_text(f"#!{line}\n")
        result = doctor(str(script))
        assert result.stdout.startswith(f"{script}: can")
        assert "it is a script that " in result.stdout
        for fact in facts:
            assert fact in result.stdout
    script.write_text("#!/usr/bin/env no-such-interpreter\n")
    result = doctor(str(script))
    assert result.returncode == 2
    assert "its interpreter no-such-interpreter is not installed" in result.stderr


def test_scripts_that_run_scripts(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(f"#!{second}\n")
    second.write_text(f"#!{sys.executable}\n")
    assert obstacle(first) == ""
    assert f"Python {platform.python_version()}" in doctor(str(first)).stdout
    second.write_text(f"#!{first}\n")
    assert "run one another without end" in obstacle(first)
    result = doctor(str(first))
    assert result.returncode == 2
    assert "run one another without end" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_cannot_be_looked_at(tmp_path: Path) -> None:
    text, cut, pipe = tmp_path / "notes.txt", tmp_path / "cut", tmp_path / "pipe"
    text.write_text("hello")
    cut.write_bytes(TRUE.read_bytes()[:1000])
    os.mkfifo(pipe)
    for target, reason in (
        (text, "no ELF file"),
        (tmp_path / "none", "No such file"),
        (cut, "the file ends early, or is damaged"),
        (pipe, "neither a file nor a folder"),
    ):
        result = doctor(str(target))
        assert (result.returncode, result.stdout) == (2, "")
        assert reason in result.stderr
        assert str(target) in result.stderr
        assert len(result.stderr.splitlines()) == 1
