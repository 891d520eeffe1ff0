"""The ways into another ggml: its own package's 0.20.2, in processes of their own (dropin_host.py).

Every way gives the bits of the plain run with each graph on streams, and says what it did.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dropin_host import library_folder
from tools import ROOT, check_static, run

import ggml_concurrent as ggc
from ggml_concurrent import cli, dropin
from ggml_concurrent._native import _LIBRARIES
from ggml_concurrent.elf import _Reader

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the drop-in is for Linux")

PROGRAM = ROOT / "tests" / "python" / "dropin_host.py"
TIMES = 4  # graphs that it computes
COMMAND = [sys.executable, "-m", "ggml_concurrent"]


@pytest.fixture(autouse=True)
def _theirs() -> None:
    pytest.importorskip("libggml", reason="pip install libggml-python==0.20.2.post1")


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GGML_")}
    kept.pop("LD_PRELOAD", None)
    return {
        **kept,
        "GGML_CONCURRENT": "always",
        "GGML_CONCURRENT_CACHE": "",
        "GGC_DROPIN": str(ggc.plugin_path()),
        **more,
    }


def program(way: str, *before: str, **more: str) -> tuple[dict, str]:
    """What it prints, and what stands on standard error."""
    result = subprocess.run(
        [*before, sys.executable, str(PROGRAM), way],
        check=False, capture_output=True, text=True, timeout=120, env=environment(**more),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1]), result.stderr


@pytest.fixture(scope="module")
def plain() -> str:
    return program("plain")[0]["digest"]


def check_held(result: dict, plain: str, version: str = "0.20.2") -> dict:
    assert result["digest"] == plain
    (host,) = result["hosts"]
    assert host["version"].startswith(version)
    (device,) = host["devices"]
    assert device["name"] == "CPU"
    assert device["graphs"] == device["on_streams"] == TIMES
    assert device["failures"] == 0
    assert device["plans"] == 1
    return host


def test_other_inputs_give_other_results(plain: str) -> None:
    assert program("other")[0]["digest"] != plain


def test_attach(plain: str) -> None:
    result, _ = program("attach")
    host = check_held(result, plain)
    assert host["held"]
    assert re.fullmatch(r"ggml 0\.20\.2\S* \(.*libggml\.so.*\) is run concurrently on CPU",
                        result["message"])  # fmt: skip


def test_memory_of_our_own_undoes_the_allocators_reuse(plain: str) -> None:
    (device,) = check_held(program("attach")[0], plain)["devices"]
    last = device["last_plan"]
    assert last["phases"] < last["phases_theirs"] / 2, last
    assert 0 < last["own_bytes"] < 1 << 20


def test_the_library_alone(plain: str) -> None:
    result, _ = program("bare")
    assert check_held(result, plain)["held"]


def test_one_backend_by_its_address(plain: str) -> None:
    result, _ = program("backend")
    host = check_held(result, plain)
    assert not host["held"], "other backends stay as they are"
    assert "is run concurrently" in result["message"]


def test_detached_a_backend_goes_on_as_without_us(plain: str) -> None:
    host = check_held(program("detach")[0], plain)  # graphs before alone are counted
    assert not host["held"]
    assert not host["devices"][0]["hooked"]
    assert host["devices"][0]["live"] == 0


def test_as_a_backend_that_ggml_loads(plain: str) -> None:
    result, told = program("load", GGML_BACKEND_PATH=str(ggc.plugin_path()))
    assert check_held(result, plain)["held"]
    assert told.count("is run concurrently on CPU") == 1, told


#
# A program that is linked with its ggml
#


def compile_host(made: Path, headers: Path, libraries: list[Path]) -> str:
    """tests/c/dropin_host.c as a program."""
    built = run(
        os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror",
        "-I", headers, "-o", made, ROOT / "tests" / "c" / "dropin_host.c",
        *libraries, f"-Wl,-rpath,{libraries[0].parent}", "-ldl",
    )  # fmt: skip
    assert built.returncode == 0, built.stdout
    return str(made)


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Compiled with the package's headers and libraries."""
    folder, made = library_folder(), tmp_path_factory.mktemp("linked") / "dropin_host"
    libraries = [folder / f"lib{name}.so.0" for name in ("ggml", "ggml-cpu", "ggml-base")]
    return compile_host(made, folder.parent / "include", libraries)


def run_linked(*command: str, **more: str) -> tuple[str, dict | None, str]:
    """The hash of its results, the drop-in's device, and what stands on standard error."""
    result = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, env=environment(**more)
    )
    assert result.returncode == 0, result.stderr
    digest, *report = result.stdout.splitlines()
    if not report:
        return digest, None, result.stderr
    (host,) = json.loads(report[0])["hosts"]
    (device,) = host["devices"]
    return digest, device, result.stderr


def test_a_program_that_loads_its_backends(tmp_path: Path) -> None:
    """The CPU's library is nobody's by linking then, as in llama.cpp's own releases; it is ours."""
    libraries = [_LIBRARIES / f"libggc-{name}.so" for name in ("ggml", "ggml-base")]
    headers = ROOT / "vendor" / "ggml" / "include"
    made = compile_host(tmp_path / "dropin_host", headers, libraries)
    (module, *_) = sorted(_LIBRARIES.glob("libggc-ggml-cpu*.so"))
    loads = {"GGML_BACKEND_PATH": str(module), "GGML_CONCURRENT_OWN": "1"}
    plain, nothing, _ = run_linked(made, "load", "1", **loads)
    assert nothing is None
    digest, device, told = run_linked(*COMMAND, "exec", "--", made, "load", "1", **loads)
    assert digest == plain
    assert device is not None
    assert device["graphs"] == device["on_streams"] == 5, (device, told)
    assert "has no" not in told, told


def test_a_linked_program(linked: str) -> None:
    plain, nothing, told = run_linked(linked, "1")
    assert (nothing, told) == (None, "")
    assert run_linked(linked, "2")[0] != plain
    held = f"({library_folder() / 'libggml.so.0'}) is run concurrently on CPU"
    for way in (
        run_linked(*COMMAND, "exec", "--always", "--", linked, "1", GGML_CONCURRENT="off"),
        run_linked(linked, "load", "1", GGML_BACKEND_PATH=str(ggc.plugin_path())),
        # both at once are one
        run_linked(*COMMAND, "exec", "--", linked, "load", "1",
                   GGML_BACKEND_PATH=str(ggc.plugin_path())),
    ):  # fmt: skip
        digest, device, told = way
        assert digest == plain
        assert device is not None
        assert device["graphs"] == device["on_streams"] == 5
        assert (device["failures"], device["plans"], device["reason"]) == (0, 1, "")
        assert told.count(held) == 1, told


def test_a_linked_program_switched_off(linked: str) -> None:
    digest, device, told = run_linked(*COMMAND, "exec", "--off", "--", linked, "1")
    assert digest == run_linked(linked, "1")[0]
    assert device is not None
    assert (device["on_streams"], device["reason"]) == (0, "GGML_CONCURRENT is off")
    assert "is run concurrently on CPU" in told


def test_a_linked_program_in_quiet(linked: str) -> None:
    assert run_linked(*COMMAND, "exec", "--", linked, "1", GGML_CONCURRENT_QUIET="1")[2] == ""


def test_a_script_that_starts_a_linked_program(linked: str, tmp_path: Path) -> None:
    script = tmp_path / "start"
    script.write_text(f"#!/bin/sh\n{linked} 1\n")
    script.chmod(0o755)
    digest, device, told = run_linked(*COMMAND, "exec", "--", str(script))
    assert digest == run_linked(linked, "1")[0]
    assert device is not None
    assert device["on_streams"] == 5
    # The shell itself, which exec has become, has no ggml; what it starts has.
    assert "is run concurrently on CPU" in told


CALLER = """
#include <stdbool.h>
#include <stddef.h>
void * ggml_backend_init_by_type(int, const char *);
void ggml_backend_cpu_set_n_threads(void *, int);
void * ggml_backend_sched_new(void *, void *, int, size_t, bool, bool);
void * caller_init(void) { return ggml_backend_init_by_type(0, NULL); }
void caller_threads(void * backend, int n) { ggml_backend_cpu_set_n_threads(backend, n); }
void * caller_sched(void * backends, int n) {
    return ggml_backend_sched_new(backends, NULL, n, 2048, false, false);
}
"""


@pytest.fixture
def caller(tmp_path: Path) -> str:
    return build_caller(tmp_path, library_folder())


def build_caller(tmp_path: Path, folder: Path) -> str:
    """A library that is linked with the ggml and makes schedulers, as libllama is."""
    source, library = tmp_path / "caller.c", tmp_path / "libcaller.so"
    source.write_text(CALLER)
    linked = [folder / f"lib{name}.so.0" for name in ("ggml", "ggml-cpu", "ggml-base")]
    built = run(
        os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", library, source, *linked,
        f"-Wl,-rpath,{folder}", "-Wl,--allow-shlib-undefined",
    )  # fmt: skip
    assert built.returncode == 0, built.stdout
    return str(library)


@pytest.mark.parametrize("way", ["preload", "preload-cpu"])
def test_preloaded(plain: str, caller: str, way: str) -> None:
    result, told = program(way, *COMMAND, "exec", "--", GGC_CALLER=caller)
    assert check_held(result, plain)["held"]
    assert told.count("ggml-concurrent: ggml 0.20.2") == 1, told


def test_switched_off(plain: str) -> None:
    result, _ = program("attach", GGML_CONCURRENT="off")
    (device,) = result["hosts"][0]["devices"]
    assert result["digest"] == plain
    assert device["graphs"] == TIMES
    assert device["on_streams"] == device["plans"] == 0
    assert device["reason"] == "GGML_CONCURRENT is off"


def test_ways_that_are_timed_have_the_same_bits() -> None:
    plain, _ = program("plain", TIMES="60")
    result, _ = program("attach", TIMES="60", GGML_CONCURRENT="eager")
    (device,) = result["hosts"][0]["devices"]
    assert result["digest"] == plain["digest"]
    assert device["graphs"] == 60
    assert device["failures"] == 0
    assert device["on_streams"] < 60


def test_number_of_streams(plain: str) -> None:
    result, _ = program("attach", GGML_CONCURRENT_STREAMS="1")
    (device,) = result["hosts"][0]["devices"]
    assert result["digest"] == plain
    assert device["on_streams"] == 0


def test_nonsense_in_the_environment_is_told(plain: str) -> None:
    result, told = program("attach", GGML_CONCURRENT="sometimes", GGML_CONCURRENT_STREAMS="0")
    assert result["digest"] == plain
    assert told.count("GGML_CONCURRENT is 'sometimes', expected off, auto, eager or always") == 1
    assert told.count("GGML_CONCURRENT_STREAMS is '0', expected a number from 1 to 64") == 1


#
# Before the runner is imported
#

FAKE_RUNNER = """
def load():
    from dropin_host import Host
    return HOST
from dropin_host import Host
HOST = Host()
"""

WATCHED = """
import sys
import ggml_concurrent as ggc
first = ggc.attach(quiet=True)
assert not first.held and "waiting for llama_cpp" in str(first), first
assert ggc.attach(quiet=True).held is False
assert sum(type(f).__module__.startswith("ggml_concurrent") for f in sys.meta_path) == 1
ACT
import llama_cpp
assert llama_cpp.__spec__.loader is llama_cpp.__loader__
assert "ggml_concurrent" not in type(llama_cpp.__loader__).__module__
assert llama_cpp.HOST
assert ggc.attachment().held is EXPECTED, ggc.attachment()
"""


@pytest.fixture
def runner(tmp_path: Path) -> str:
    """A folder with a package `llama_cpp` that loads libggml-python's ggml."""
    (tmp_path / "llama_cpp.py").write_text(FAKE_RUNNER)
    return os.pathsep.join([str(tmp_path), str(ROOT / "tests" / "python")])


def test_attached_before_the_runner_is_imported(plain: str, runner: str) -> None:
    result, told = program("import", PYTHONPATH=runner)
    assert "waiting for llama_cpp" in result["before"]
    assert check_held(result, plain)["held"]
    assert "ggml-concurrent" not in told, "quiet"


@pytest.mark.parametrize(("act", "expected"), [("", "True"), ("ggc.detach()", "False")])
def test_imports_are_watched_until_detached(runner: str, act: str, expected: str) -> None:
    text = WATCHED.replace("ACT", act).replace("EXPECTED", expected)
    result = run(sys.executable, "-c", text, timeout=60, **environment(PYTHONPATH=runner))
    assert result.returncode == 0, result.stdout


def test_where_there_is_no_ggml_that_is_said() -> None:
    code = (
        "import ctypes, os; lib = ctypes.CDLL(os.environ['GGC_DROPIN'])\n"
        "text = ctypes.create_string_buffer(999)\n"
        "status = lib.ggc_dropin_attach(None, text, ctypes.c_size_t(999))\n"
        "print(status, text.value.decode())"
    )
    told = run(sys.executable, "-c", code, **environment()).stdout
    assert re.fullmatch(
        r"[1-9]\d* no ggml with exported functions is loaded: .*statically.*\n", told
    )


def test_an_import_that_fails_is_waited_for_again(tmp_path: Path, runner: str) -> None:
    text = (
        "import sys, pathlib, ggml_concurrent as ggc; ggc.attach(quiet=True)\n"
        f"path = pathlib.Path({str(tmp_path / 'llama_cpp.py')!r}); text = path.read_text()\n"
        "sys.dont_write_bytecode = True\n"
        "path.write_text('raise ImportError(5)')\n"
        "try: import llama_cpp\n"
        "except ImportError as error: assert error.args == (5,)\n"
        "else: raise AssertionError\n"
        "path.write_text(text)\n"
        "import llama_cpp; assert ggc.attachment().held\n"
    )
    result = run(sys.executable, "-c", text, timeout=60, **environment(PYTHONPATH=runner))
    assert result.returncode == 0, result.stdout


def test_what_cannot_be_attached() -> None:
    with pytest.raises(ValueError, match="backend is NULL"):
        ggc.attach(0, quiet=True)


#
# A ggml that does not fit
#

SPECIAL = {
    "ggml_version": 'const char * ggml_version(void) { return "0.99.0"; }',
    "ggml_op_name": "const char * ggml_op_name(int i) "
    '{ return i == 3 ? "GLU" : i == 2 ? "ADD" : "NONE"; }',
    "ggml_tensor_overhead": "long ggml_tensor_overhead(void) { return 400; }",
    "ggml_backend_dev_count": "long ggml_backend_dev_count(void) { return 1; }",
}


ATTACH = "import ggml_concurrent as ggc; a = ggc.attach(quiet=True); assert not a.held; print(a)"
# As ggml loads what GGML_BACKEND_PATH names.
LOAD = """
void * dlopen(const char *, int);
void * dlsym(void *, const char *);
void * load(const char * path) {
    void * volatile reg = ((void * (*)(void)) dlsym(dlopen(path, 1), "ggml_backend_init"))();
    return reg;
}
"""


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., str]:
    """Compiles a ggml that has the functions, and nothing in them; what attach() says of it."""
    compiler = shutil.which(os.environ.get("CC", "cc").split()[0])
    if compiler is None:
        pytest.skip("no C compiler")
    names = re.findall(r"^[FV]\((?:[^,()]*, )?(ggml_\w+),", (
        ROOT / "csrc" / "dropin" / "host_functions.def").read_text(), re.MULTILINE)  # fmt: skip
    assert len(names) > 50
    assert set(SPECIAL) <= set(names)

    def attach(missing: str = "", code: str = ATTACH, **special: str) -> str:
        bodies = {name: f"long {name}(void) {{ return 0; }}" for name in names}
        bodies |= SPECIAL | special
        bodies.pop(missing, None)
        source, library = tmp_path / "fake.c", tmp_path / "libggml-fake.so"
        source.write_text("\n".join(bodies.values()) + "\n")
        built = run(compiler, "-shared", "-fPIC", "-o", library, source)
        assert built.returncode == 0, built.stdout
        text = f"import ctypes; fake = ctypes.CDLL({str(library)!r})\n{code}"
        result = run(sys.executable, "-c", text, timeout=60, **environment())
        assert result.returncode == 0, result.stdout
        return result.stdout

    return attach


def test_other_structures_are_refused(fake: Callable[..., str]) -> None:
    told = fake()
    assert "ggml 0.99.0" in told
    assert "is left alone: its tensors have another size" in told


def test_missing_functions_are_named(fake: Callable[..., str]) -> None:
    told = fake("ggml_backend_buft_get_max_size")
    assert "is left alone: it has no ggml_backend_buft_get_max_size" in told


def test_unknown_operations_are_refused(fake: Callable[..., str]) -> None:
    other = 'const char * ggml_op_name(int i) { (void) i; return "NEW"; }'
    assert "its operations do not end with GLU" in fake(ggml_op_name=other)


# Stands before libggml-python's own, which does all but what is told wrongly. The device is the
# anchor by which a ggml is found.
FORWARDED = """
#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
static void * real(const char * name) { return dlsym(dlopen(REAL, RTLD_LAZY), name); }
void * ggml_backend_dev_get(size_t i) {
    void * (*next)(size_t) = (void * (*)(size_t)) real("ggml_backend_dev_get");
    return next(i);
}
"""
LIES = {
    "nothing": ("", ""),
    "no context": ("void * ggml_init(void) { return NULL; }", "it gave no context"),
    "large graphs": (
        "size_t ggml_graph_overhead_custom(size_t n, bool g) { (void) n; return g + (1 << 20); }",
        "its graphs have another size",
    ),
    "a name": (
        "void * ggml_set_name(void * t, const char * n) { (void) n; return t; }",
        "its tensors are laid out otherwise",
    ),
    "an offset": (
        """void * ggml_view_1d(void * c, void * a, int64_t n, size_t at) {
            void * (*next)(void *, void *, int64_t, size_t) =
                (void * (*)(void *, void *, int64_t, size_t)) real("ggml_view_1d");
            return next(c, a, n, at - 4);
        }""",
        "its tensors are laid out otherwise",
    ),
    "a parameter": (
        """void * ggml_scale(void * c, void * a, float s) {
            void * (*next)(void *, void *, float) =
                (void * (*)(void *, void *, float)) real("ggml_scale");
            return next(c, a, 2 * s);
        }""",
        "its tensors are laid out otherwise",
    ),
    "an operation": (
        """void * ggml_add(void * c, void * a, void * b) {
            void * (*next)(void *, void *, void *) =
                (void * (*)(void *, void *, void *)) real("ggml_sub");
            return next(c, a, b);
        }""",
        "its tensors are laid out otherwise",
    ),
    "a flag": (
        "void ggml_set_output(void * t) { (void) t; }",
        "its tensors are laid out otherwise",
    ),
    "nodes": (
        "int ggml_graph_n_nodes(void * g) { (void) g; return 4; }",
        "its graphs are laid out otherwise",
    ),
    "their places": (
        "void * ggml_graph_nodes(void * g) { return g; }",
        "its graphs are laid out otherwise",
    ),
    "a device's name": (
        'const char * ggml_backend_dev_name(void * d) { (void) d; return "other"; }',
        "its devices are laid out otherwise",
    ),
    "a device's kind": (
        "int ggml_backend_dev_type(void * d) { (void) d; return 3; }",
        "its devices are laid out otherwise",
    ),
    "a registry": (
        "void * ggml_backend_dev_backend_reg(void * d) { return d; }",
        "its devices are laid out otherwise",
    ),
    "a registry's name": (
        'const char * ggml_backend_reg_name(void * r) { (void) r; return "other"; }',
        "its devices are laid out otherwise",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_each_probe_refuses(lie: str, tmp_path: Path) -> None:
    text, reason = LIES[lie]
    source, library, folder = tmp_path / "lie.c", tmp_path / "liblie.so", library_folder()
    source.write_text(FORWARDED + text)
    built = run(
        os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", library, source,
        f'-DREAL="{folder / "libggml.so.0"}"', "-Wl,--no-as-needed",
        *(folder / f"lib{name}.so.0" for name in ("ggml", "ggml-cpu", "ggml-base")),
        f"-Wl,-rpath,{folder}",
    )  # fmt: skip
    assert built.returncode == 0, built.stdout
    code = (
        f"import ctypes; ctypes.CDLL({str(library)!r})\n"
        "import ggml_concurrent as ggc; print(ggc.attach(quiet=True))"
    )
    told = run(sys.executable, "-c", code, timeout=60, **environment()).stdout
    assert f"({folder / 'libggml.so.0'}) is run concurrently on CPU" in told, "the real one"
    found = f"left alone: {reason}" if reason else "run concurrently on CPU"
    assert f"ggml 0.20.2 ({library}) is {found}" in told, told


@pytest.mark.parametrize("missing", ["", "ggml_version"])
def test_who_names_it_as_a_backend_is_told_once_why_it_does_not_fit(
    fake: Callable[..., str], missing: str
) -> None:
    code = "import os\nfor _ in range(2): fake.load(os.environ['GGC_DROPIN'].encode())"
    told = fake(missing, code, load=LOAD).splitlines()
    version = "of an unknown version" if missing else "0.99.0"
    reason = (
        "it has no ggml_version: too old, or cut down"
        if missing
        else ("its tensors have another size")
    )
    assert len(told) == 1, told
    assert told[0].startswith(f"ggml-concurrent: ggml {version} (")
    assert told[0].endswith(f"libggml-fake.so) is left alone: {reason}")


#
# exec and plugin-path
#


def execute(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "exec", *arguments],
        check=False, capture_output=True, text=True, timeout=60, env=environment(**more),
    )  # fmt: skip


def test_plugin_path() -> None:
    result = run(*COMMAND, "plugin-path")
    assert result.stdout.strip() == str(_LIBRARIES / "libggml-concurrent-dropin.so")


def test_without_the_library_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dropin, "_LIBRARIES", tmp_path)
    for arguments in (["plugin-path"], ["exec", "--", "true"], ["doctor"]):
        assert cli.main(arguments) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err == (
            "ggml-concurrent: the drop-in is for Linux only so far; there is no "
            f"{tmp_path / 'libggml-concurrent-dropin.so'}\n"
        )


def test_exec_from_a_folder_that_the_loader_cannot_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    shutil.copy(ggc.plugin_path(), folder)
    monkeypatch.setattr(dropin, "_LIBRARIES", folder)
    assert cli.main(["exec", "--", "true"]) == 2
    assert "a space or a colon in it; install ggml-concurrent elsewhere" in capsys.readouterr().err


OURS = """
import hashlib
import numpy as np
import ggml_concurrent as ggc
rng = np.random.default_rng(1)
with ggc.Store() as store, ggc.Graph() as graph:
    x = graph.input("x", "f32", ne=(64,))
    for t in range(4):
        w = store.array(f"w{t}", rng.standard_normal((64, 64), np.float32))
        graph.output(graph.relu(graph.mul_mat(w, x)), name=f"y{t}")
    for streams, scheduled in ((2, False), (1, True)):
        with ggc.Runner(graph, streams=streams, threads=2, scheduled=scheduled) as runner:
            out = runner.run(x=np.ones(64, np.float32))
            print(hashlib.sha256(b"".join(y.tobytes() for y in out.values())).hexdigest())
"""


def test_exec_does_not_complain_of_what_was_let_go(plain: str, caller: str) -> None:
    result, told = program("detach", *COMMAND, "exec", "--", GGC_CALLER=caller)
    assert result["digest"] == plain
    assert not result["hosts"][0]["held"]
    assert "did not take hold" not in told


def test_exec_leaves_our_own_ggml_alone() -> None:
    plain = run(sys.executable, "-c", OURS, **environment()).stdout
    assert len(set(plain.split())) == 1
    result = execute("--", sys.executable, "-c", OURS)
    assert (result.returncode, result.stdout) == (0, plain)
    assert "is run concurrently" not in result.stderr


def test_exec_keeps_arguments_input_and_status(tmp_path: Path) -> None:
    code = "import sys; print(sys.argv[1:]); sys.exit(7)"
    result = execute("--streams", "3", "--", sys.executable, "-c", code, "--always", "a b")
    assert result.returncode == 7
    assert result.stdout == "['--always', 'a b']\n"


def test_exec_says_when_nothing_took_hold() -> None:
    result = execute("--", sys.executable, "-c", "pass")
    assert result.returncode == 0
    assert result.stderr.count("did not take hold: no scheduler was made") == 1, result.stderr


def test_exec_says_nothing_of_what_the_program_starts() -> None:
    code = f"import subprocess; subprocess.run([{sys.executable!r}, '-c', 'pass'], check=True)"
    assert execute("--", sys.executable, "-c", code).stderr.count("did not take hold") == 1


def test_exec_keeps_what_is_preloaded() -> None:
    code = "import os; print(os.environ['LD_PRELOAD'], os.environ['GGML_CONCURRENT_STREAMS'])"
    result = execute("--streams", "3", "--", sys.executable, "-c", code, LD_PRELOAD="libm.so.6")
    assert result.stdout.split() == [str(ggc.plugin_path()), "libm.so.6", "3"]


def test_exec_of_what_is_not_there(tmp_path: Path) -> None:
    for name in ("no-such-program", str(tmp_path / "none")):
        result = execute("--", name)
        assert result.returncode == 127
        assert result.stderr == f"ggml-concurrent: {name}: no such program\n"


def test_exec_of_what_cannot_be_run(tmp_path: Path) -> None:
    plain, empty = tmp_path / "plain", tmp_path / "empty"
    plain.write_text("text")
    empty.write_text("")
    empty.chmod(0o755)
    for path, reason in ((plain, "not executable"), (tmp_path, "a folder, no program")):
        result = execute("--", str(path))
        assert result.returncode == 126
        assert result.stderr.startswith(f"ggml-concurrent: {path}: {reason}")
        assert len(result.stderr.splitlines()) == 1
    result = execute("--", str(empty))
    assert result.returncode == 126
    assert f"{empty}: Exec format error" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "no command is given"),
        (["--"], "no command is given"),
        (["--always", "--off", "--", "true"], "not allowed with"),
        (["--streams", "0", "--", "true"], "--streams"),
    ],
)
def test_exec_of_nothing(arguments: list[str], reason: str) -> None:
    result = execute(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_exec_is_the_program_itself() -> None:
    code = "import os; os.kill(os.getpid(), 9)"
    assert execute("--", sys.executable, "-c", code).returncode == -signal.SIGKILL
    code = "import os; print(os.getpid() == int(os.environ['GGML_CONCURRENT_EXEC']))"
    assert execute("--", sys.executable, "-c", code).stdout == "True\n"


def test_exec_switches_override_the_environment() -> None:
    code = "import os; print(os.environ.get('GGML_CONCURRENT'))"
    switches = (["--off"], "off"), (["--always"], "always"), (["--eager"], "eager"), ([], "auto")
    for switch, expected in switches:
        result = execute(*switch, "--", sys.executable, "-c", code, GGML_CONCURRENT="auto")
        assert result.stdout == f"{expected}\n"


def test_exec_of_a_script_without_its_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/env no-such-interpreter\n")
    script.chmod(0o755)
    result = execute("--", str(script))
    assert result.returncode == 127, "as env says itself"
    assert f"{script}: its interpreter no-such-interpreter is not installed" in result.stderr


def test_exec_of_a_program_with_other_rights(tmp_path: Path) -> None:
    if os.getuid() == 0:
        program = tmp_path / "program"
        shutil.copy(shutil.which("true") or "/bin/true", program)
        os.chown(program, 65534, -1)
        program.chmod(0o4755)
    else:
        found = shutil.which("su") or shutil.which("passwd")
        if found is None or not Path(found).stat().st_mode & stat.S_ISUID:
            pytest.skip("neither the right to make a set-user-id program nor one that is there")
        program = Path(found)
    result = execute("--", str(program), "--help")
    reason = (
        f"{program} runs with rights that you do not have, and the loader then preloads nothing"
    )
    assert reason in result.stderr
    assert "did not take hold" not in result.stderr, "it was preloaded all the same"


def test_exec_of_a_static_program_says_so_and_runs_it(tmp_path: Path) -> None:
    source, program = tmp_path / "hello.c", tmp_path / "hello"
    source.write_text('#include <stdio.h>\nint main(void) { puts("hello"); return 3; }\n')
    check_static(run(os.environ.get("CC", "cc"), "-static", "-o", program, source))
    result = execute("--", str(program))
    assert (result.returncode, result.stdout) == (3, "hello\n")
    assert f"{program} is linked statically" in result.stderr


#
# ggml 0.27.0
#

# What the older C library lacks: its functions under the names that the newer one has.
C23 = """
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
long __isoc23_strtol(const char * t, char ** e, int b) { return strtol(t, e, b); }
unsigned long __isoc23_strtoul(const char * t, char ** e, int b) { return strtoul(t, e, b); }
unsigned long long __isoc23_strtoull(const char * t, char ** e, int b) { return strtoull(t, e, b); }
int __isoc23_sscanf(const char * t, const char * f, ...) {
    va_list args;
    va_start(args, f);
    int n = vsscanf(t, f, args);
    va_end(args);
    return n;
}
"""
WEAK, VERNEED = 2, 0x6FFFFFFE


def weaken(path: Path, version: bytes) -> None:
    """Lets a library load where the C library is older than the one that it names."""
    data = bytearray(path.read_bytes())
    reader = _Reader(path, data)  # type: ignore[arg-type]
    reader.read_segments()
    reader.read_dynamic()
    names = reader.offset_of(reader.entries[5][0])
    at = reader.offset_of(reader.entries[VERNEED][0])
    while True:
        _, n, _, first, after = struct.unpack_from("<HHIII", data, at)
        entry = at + first
        for _ in range(n):
            _, flags, _, name, onward = struct.unpack_from("<IHHII", data, entry)
            if reader.text(names + name).encode() == version:
                struct.pack_into("<H", data, entry + 4, flags | WEAK)
            entry += onward
        if after == 0:
            break
        at += after
    path.write_bytes(data)


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which dropin_host.py has ggml 0.27.0: the code as it is shipped, with the
    record of its C library's version weakened where ours is older.
    """
    spec = importlib.util.find_spec("llama_cpp_py_sync")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("llama-cpp-py-sync is not installed: pip install llama-cpp-py-sync==0.11739")
    source = Path(spec.submodule_search_locations[0])
    code = f"import ctypes; ctypes.CDLL({str(source / 'libggml.so.0')!r})"
    tried = run(sys.executable, "-c", code)
    if tried.returncode == 0:
        return {"GGC_HOST": str(source)}
    if "GLIBC_2.38' not found" not in tried.stdout:
        told = f"llama-cpp-py-sync does not load here: {tried.stdout.splitlines()[-1]}"
        if re.search(r"version `(GLIBC|GLIBCXX|CXXABI)_[\d.]+' not found", told):
            pytest.skip(told)  # an older system's libraries
        pytest.fail(told)
    folder = tmp_path_factory.mktemp("newer")
    for library in source.glob("libggml*.so*"):
        copy = folder / library.name
        shutil.copy(library, copy)
        weaken(copy, b"GLIBC_2.38")
    (folder / "c23.c").write_text(C23)
    compiler = os.environ.get("CC", "cc")
    built = run(compiler, "-shared", "-fPIC", "-o", folder / "c23.so", folder / "c23.c")
    assert built.returncode == 0, built.stdout
    return {"GGC_HOST": str(folder), "LD_PRELOAD": str(folder / "c23.so")}


@pytest.mark.parametrize("way", ["attach", "bare", "backend", "detach"])
def test_a_newer_ggml(newer: dict[str, str], way: str) -> None:
    plain, _ = program("plain", **newer)
    assert program("other", **newer)[0]["digest"] != plain["digest"]
    check_held(program(way, **newer)[0], plain["digest"], version="0.27.0")


def test_a_newer_ggml_preloaded(newer: dict[str, str], tmp_path: Path) -> None:
    plain, _ = program("plain", **newer)
    caller = build_caller(tmp_path, Path(newer["GGC_HOST"]))
    result, told = program("preload", *COMMAND, "exec", "--", GGC_CALLER=caller, **newer)
    assert check_held(result, plain["digest"], version="0.27.0")["held"]
    assert told.count("ggml-concurrent: ggml 0.27.0") == 1, told
