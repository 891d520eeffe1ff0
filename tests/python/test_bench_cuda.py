"""`ggml-concurrent bench --device cuda0`: on the simulated CUDA (tests/cuda), without a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tools import ROOT, need_built, run

import ggml_concurrent as ggc
from ggml_concurrent import info, zoo
from ggml_concurrent.bench import candidates, device, graphs, results_file, study, table, traffic
from ggml_concurrent.bench.results import Settings

ALL = "serial,graph-opt,direct,streams,levels,default"

# Every Python process of the test loads the simulated CUDA in CUDA's place.
SITE = """
import ctypes
import os

from ggml_concurrent._native import _LIBRARIES, load_backends
from ggml_concurrent.bench import device

load_backends()
registry = ctypes.CDLL(str(_LIBRARIES / "libggc-ggml.so"))
registry.ggml_backend_load.restype = ctypes.c_void_p
assert registry.ggml_backend_load(os.environ["SIMULATED_CUDA"].encode())
device._COPIED = 1 << 20
"""

#
# ggml's scheduler, by which the others are measured
#


def test_the_scheduler_launches_one_captured_graph() -> None:
    folder = need_built("tests", "cuda", "libggc-ggml-cuda-sim.so").parent
    names = ("towers-tiny", "llama-tiny", "rwkv7-tiny", "qwen2moe-tiny", "falcon-h1-tiny")
    program = ROOT / "tests" / "cuda" / "run_sched.py"
    result = run(sys.executable, program, folder, *names, timeout=120.0)
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("launches of one captured graph") == len(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"streams": 2}, "n_streams 1"),
        ({"streams": 1, "trace": True}, "without trace"),
        ({"streams": 1, "device": "metal"}, "not for Metal"),
    ],
)
def test_what_does_not_go_with_the_scheduler(arguments: dict[str, Any], message: str) -> None:
    with (
        zoo.build("towers-tiny") as workload,
        pytest.raises(ggc.GraphError, match=f"scheduled.*{message}"),
    ):
        ggc.Runner(workload.graph, **arguments, scheduled=True)


#
# The command
#

Bench = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Runs the command in a process that has the simulated CUDA."""
    module = need_built("tests", "cuda", "libggc-ggml-cuda-sim.so")
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(SITE, encoding="utf-8")
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]

    def call(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        environment = {k: v for k, v in environment.items() if not k.startswith("GGML_CUDA_")}
        return subprocess.run(
            [sys.executable, "-m", "ggml_concurrent", "bench", *map(str, arguments)],
            env={**environment, "SIMULATED_CUDA": str(module), **variables},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return call


def test_all_candidates_have_the_bits_of_ggmls_scheduler(bench: Bench, tmp_path: Path) -> None:
    file, html = tmp_path / "r.json", tmp_path / "r.html"
    names = ("towers-tiny", "llama-tiny@past=7,tokens=2,dtype=q8_0")
    result = bench(
        *names, "--device", "cuda0", "--compare", ALL, "--runs", 2, "--processes", 1,
        "--json", file, "--html", html, GGML_CUDA_PDL="0", GGML_CUDA_GRAPH_OPT="1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    results = results_file.load_file(file)
    assert [graph.name for graph in results.graphs] == list(names)
    assert (results.graphs[1].dtype, results.graphs[1].n_tokens) == ("q8_0", 2)
    assert (results.graphs[0].n_past, results.graphs[1].n_past) == (0, 7)
    for graph in results.graphs:
        assert [m.candidate for m in graph.measured] == ALL.split(",")
        assert all(len(m.times_ms) == 2 and not m.differs for m in graph.measured)
        assert graph.of("graph-opt").ways == graph.of("serial").ways == ["serial 1/1"]
        assert graph.of("serial").buffer_bytes > 0
        assert graph.facts.bytes_read > 0
        assert graph.bound_ms(results.bandwidth.gb_per_s) > 0
    assert results.graphs[0].of("streams").processes[0].streams == 5  # of 8: there are 5 towers
    assert results.bandwidth.threads == 0
    for text in (result.stdout, html.read_text(encoding="utf-8")):
        assert "device cuda0: a simulated GPU, driver " in text
        assert "USE_GRAPHS" in text
        assert re.search(r"set in the environment: GGML_CUDA_PDL=0(<|\n)", text)
        assert "GB/s: the device, 2 MiB" in text
        assert "inputs lie on the device" in text
        assert names[1] in text


def test_repeating_keeps_the_device_and_the_sizes(bench: Bench, tmp_path: Path) -> None:
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    asked = ("towers-tiny", "--device", "cuda1", "--compare", "serial,streams", "--runs", 1)
    assert bench(*asked, "--json", first).returncode == 0
    again = bench("--repeat-from", first, "--json", second)
    assert again.returncode == 0, again.stderr
    settings = results_file.load_file(second).settings
    assert settings == results_file.load_file(first).settings
    assert settings.device == "cuda1"
    assert re.search(r"\| ratio \| +was \|", again.stdout)


def test_ggml_without_cuda_graphs_is_refused_unless_asked_for(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    asked = ("towers-tiny", "--device", "cuda0", "--compare", "serial", "--runs", 1)
    refused = bench(*asked, GGML_CUDA_DISABLE_GRAPHS="1")
    assert (refused.returncode, refused.stdout) == (2, "")
    (line,) = refused.stderr.splitlines()
    assert "GGML_CUDA_DISABLE_GRAPHS is set" in line
    assert "several times slower" in line
    assert "--without-cuda-graphs" in line
    allowed = bench(
        *asked, "--without-cuda-graphs", "--json", file, GGML_CUDA_DISABLE_GRAPHS="1"
    )  # fmt: skip
    assert allowed.returncode == 0, allowed.stderr
    assert "GGML_CUDA_DISABLE_GRAPHS=1" in allowed.stdout
    assert results_file.load_file(file).settings.without_cuda_graphs


def test_a_ggml_built_without_cuda_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GGML_CUDA_DISABLE_GRAPHS", raising=False)
    monkeypatch.setattr(device, "find_device", lambda _: None)
    monkeypatch.setattr(device, "device_features", lambda _: ["ARCHS"])
    with pytest.raises(ggc.Error, match=r"built without CUDA graphs.*GGML_CUDA_GRAPHS=ON"):
        device.check("cuda0")
    device.check("cuda0", without_cuda_graphs=True)
    monkeypatch.setattr(device, "device_features", lambda _: ["ARCHS", "USE_GRAPHS"])
    device.check("cuda0")


def test_candidates_on_cuda() -> None:
    c = candidates.CANDIDATES
    plain = {"streams": 1, "threads": 2}
    assert c["serial"].runner_arguments(4, 2, "cuda0") == {**plain, "scheduled": True}
    assert c["graph-opt"].runner_arguments(4, 2, "cuda0") == {**plain, "scheduled": True}
    assert c["direct"].runner_arguments(4, 2, "cuda0") == plain
    assert c["serial"].runner_arguments(4, 2, "cpu") == plain
    assert c["graph-opt"].variables("cuda0")["GGML_CUDA_GRAPH_OPT"] == "1"
    assert c["in-turn"].variables("cuda0")["GGML_CUDA_PDL"] == "0"
    assert "GGML_CUDA_PDL" not in c["serial"].variables("cuda0")
    assert [candidates.reference_of(device) for device in ("cpu", "cuda1")] == ["serial", "in-turn"]
    for name in ("serial", "direct", "streams", "default"):
        assert c[name].variables("cuda1")["GGML_CUDA_GRAPH_OPT"] == "0"
    assert all(
        candidate.variables("cpu")["GGML_CONCURRENT_CACHE"] == "" for candidate in c.values()
    )
    assert "GGML_CUDA_GRAPH_OPT" not in c["serial"].variables("cpu")
    assert set(candidates.COMPARED["cuda"]) == {"serial", "graph-opt", "streams", "default"}


SETTINGS = Settings(
    ("x",), ("serial",), "cuda0", 1, 1, None, 2, 2, n_tokens=4, n_past=None, dtype="f16",
    timeline=None,
)  # fmt: skip


def test_a_graphs_own_sizes_come_before_those_of_all() -> None:
    assert graphs.build_arguments(SETTINGS, "llama-tiny") == {
        "device": "cuda0", "flash_attn": True, "n_tokens": 4, "dtype": "f16"
    }  # fmt: skip
    asked = graphs.build_arguments(SETTINGS, "llama-tiny@tokens=1,past=0,dtype=Q4_0,flash=0")
    assert asked == {
        "device": "cuda0", "n_tokens": 1, "n_past": 0, "dtype": "q4_0", "flash_attn": False
    }  # fmt: skip


def test_a_device_that_does_not_tell_times_has_a_bound_by_bytes() -> None:
    from test_bench import example

    results = example()
    graph = results.graphs[0]
    assert not any("not measured" in note for note in table.notes(results))
    graph.facts = type(graph.facts)(
        **{**vars(graph.facts), "work_ms": None, "critical_ms": None, "bytes_read": 4_000_000}
    )
    assert graph.bound_ms(2.0) == graph.bytes_ms(2.0) == pytest.approx(1.0)
    (row,) = table.graphs(results).rows
    cells = dict(zip(table.graphs(results).head, row, strict=True))
    assert (cells["all units ms"], cells["critical ms"], cells["bound ms"]) == ("-", "-", "1.000")
    assert any("critical: not measured" in note for note in table.notes(results))
    assert results_file.load(results_file.dump(results)).graphs[0].facts.critical_ms is None


class Untold:
    """A workload on a device that cannot trace."""

    class store:  # noqa: N801
        device = "cuda0"

    def runner(self, **arguments: object) -> None:
        raise ggc.DeviceError(f"Runner: {arguments}")


def test_durations_that_a_device_does_not_tell() -> None:
    assert study.unit_durations(Untold(), 2, 3) is None  # type: ignore[arg-type]
    untold = Untold()
    untold.store = type("store", (), {"device": "cpu"})  # type: ignore[misc,assignment]
    with pytest.raises(ggc.DeviceError):
        study.unit_durations(untold, 2, 3)  # type: ignore[arg-type]


def test_the_cpu_is_measured_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.describe("cpu") == {}
    assert device.free_memory("cpu") == pytest.approx(device.machine.available_memory(), rel=0.5)
    monkeypatch.setattr(traffic, "copy_gb_per_s", lambda nbytes, threads: (nbytes, threads))
    assert device.copy_gb_per_s("cpu", 5, 3) == (5, 3)
    assert info.device_features("cpu") == info.information()["cpu features"]


def test_the_drivers_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "version"
    monkeypatch.setattr(device, "_DRIVER", file)
    assert device._driver() is None
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024"
    file.write_text(f"{text}\nGCC version:  gcc version 12.2.0\n", encoding="utf-8")
    assert device._driver() == "550.54.15"
    assert re.fullmatch(r"[\d.]+", device._driver() or "")
