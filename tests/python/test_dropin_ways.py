"""The ways into another ggml: its own package's 0.20.2, in processes of their own (dropin_host.py).

Every way gives the bits of the plain run with each graph on streams, and says what it did.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dropin_host import library_folder
from tools import ROOT, run

import ggml_concurrent as ggc
from ggml_concurrent._native import _LIBRARIES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the drop-in is for Linux")

PROGRAM = ROOT / "tests" / "python" / "dropin_host.py"
TIMES = 4  # graphs that it computes
COMMAND = [sys.executable, "-m", "ggml_concurrent"]


@pytest.fixture(autouse=True)
def _theirs() -> None:
    pytest.importorskip("libggml", reason="pip install libggml-python==0.20.2.post1")


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GGML_")}
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


def check_held(result: dict, plain: str, graphs: int = TIMES) -> dict:
    assert result["digest"] == plain
    (host,) = result["hosts"]
    assert host["version"].startswith("0.20.2")
    (device,) = host["devices"]
    assert device["name"] == "CPU"
    assert device["graphs"] == device["on_streams"] == graphs
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
    """A library that is linked with the ggml and makes schedulers, as libllama is."""
    source, library = tmp_path / "caller.c", tmp_path / "libcaller.so"
    source.write_text(CALLER)
    folder = library_folder()
    linked = [folder / f"lib{name}.so.0" for name in ("ggml", "ggml-cpu", "ggml-base")]
    built = run(
        os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", library, source, *linked,
        f"-Wl,-rpath,{folder}",
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


def test_number_of_streams(plain: str) -> None:
    result, _ = program("attach", GGML_CONCURRENT_STREAMS="1")
    (device,) = result["hosts"][0]["devices"]
    assert result["digest"] == plain
    assert device["on_streams"] == 0


def test_nonsense_in_the_environment_is_told(plain: str) -> None:
    result, told = program("attach", GGML_CONCURRENT="sometimes", GGML_CONCURRENT_STREAMS="0")
    assert result["digest"] == plain
    assert told.count("GGML_CONCURRENT is 'sometimes', expected off, auto or always") == 1
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

    def attach(missing: str = "", **special: str) -> str:
        bodies = {name: f"long {name}(void) {{ return 0; }}" for name in names}
        bodies |= SPECIAL | special
        bodies.pop(missing, None)
        source, library = tmp_path / "fake.c", tmp_path / "libggml-fake.so"
        source.write_text("\n".join(bodies.values()) + "\n")
        built = run(compiler, "-shared", "-fPIC", "-o", library, source)
        assert built.returncode == 0, built.stdout
        text = (
            f"import ctypes; ctypes.CDLL({str(library)!r})\n"
            "import ggml_concurrent as ggc; a = ggc.attach(quiet=True); assert not a.held; print(a)"
        )
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
    result = execute("--", "no-such-program")
    assert result.returncode == 127
    assert "no-such-program: no such program" in result.stderr
    assert execute().returncode == 2


def test_exec_of_a_static_program_says_so_and_runs_it(tmp_path: Path) -> None:
    source, program = tmp_path / "hello.c", tmp_path / "hello"
    source.write_text('#include <stdio.h>\nint main(void) { puts("hello"); return 3; }\n')
    built = run(os.environ.get("CC", "cc"), "-static", "-o", program, source)
    if built.returncode:
        pytest.skip("this compiler links nothing statically: libc.a is missing")
    result = execute("--", str(program))
    assert (result.returncode, result.stdout) == (3, "hello\n")
    assert f"{program} is linked statically" in result.stderr
