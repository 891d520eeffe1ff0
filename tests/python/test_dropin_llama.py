"""llama-cpp-python with and without the drop-in: the logits have the same bits.

`scripts/test` builds it into build/runner beside everything else, so these tests come last. With
GGML_CONCURRENT=always every graph is computed on streams from the first time on; dropin_llama.py
says what each case does.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from dropin_llama import CASES
from gguf_writer import write_gguf
from graph_cases import CASES as GRAPHS
from graph_cases import write_model
from tools import ROOT, need_built

import ggml_concurrent as ggc
from ggml_concurrent.models.package import package_model

pytestmark = [
    pytest.mark.timeout(2400),  # the first one waits for the build
    pytest.mark.skipif(sys.platform != "linux", reason="the drop-in is for Linux"),
]

PROGRAM = ROOT / "tests" / "python" / "dropin_llama.py"
BUILD_SECONDS = 1800.0
MOST_STREAMS = 8  # of one backend, by default

#: What takes long with Gemma is done with a tiny model.
GEMMA = [
    "short_prompts", "prompt_of_300", "prompt_of_2000", "quantised_cache", "several_threads",
    "several_sequences", "context_shift", "pooled",
]  # fmt: skip
#: Not for the tiny one.
ELSEWHERE = [
    "quantised_cache", "embeddings", "pooled", "encoded", "adapters_change", "many_tokens",
    "forked",
]  # fmt: skip
ENCODERS = [name for name, case in GRAPHS.items() if case.embeddings]
ADAPTED = [name for name in GRAPHS if "lora" in name]
TINY = "llama-tiny"
WINDOWED = "gemma3-tiny"  # two caches, of which one has a sliding window
SITUATIONS = [
    "context_shift", "several_sequences", "state_saved_and_restored", "growing_cache", "watched",
    "aborted", "held_and_let_go", "threads_change",
]  # fmt: skip
BRIEF = ["short_prompts", "prompt_of_300", "several_contexts", "small_batches", "flash_attention"]
#: Calls to the driver that are made for each context.
FAULTS = (
    "cuCtxPushCurrent_v2", "cuStreamCreate", "cuStreamBeginCapture_v2", "cuEventRecord",
    "cuStreamWaitEvent", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphLaunch",
)  # fmt: skip
SIMULATED = [*SITUATIONS, "prompt_of_300", "several_contexts", "several_threads", "loaded_again"]
OTHERS = [
    name
    for name, case in GRAPHS.items()
    if name not in (TINY, *ENCODERS, *ADAPTED)
    and not case.flash_attn
    and name != "rwkv7-tiny-token"
]


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder with llama-cpp-python, once it is built."""
    folder = Path(os.environ.get("GGC_RUNNER_DIR") or ROOT / "build" / "runner")
    done, failed = (folder.with_name(f"{folder.name}.{end}") for end in ("done", "failed"))
    if "GGC_RUNNER_DIR" not in os.environ and not done.exists():
        pytest.skip("llama-cpp-python is not built: run scripts/test without --quick")
    end = time.monotonic() + BUILD_SECONDS
    while not done.exists() and not failed.exists() and time.monotonic() < end:
        time.sleep(1)
    if not done.exists():
        log = folder.with_name(f"{folder.name}.log").read_text(errors="replace")
        pytest.fail(f"llama-cpp-python could not be built:\n{log[-3000:]}", pytrace=False)
    return folder


def has_gpu(site: Path) -> bool:
    return (site / "llama_cpp" / "lib" / "libggml-cuda.so").exists() and Path(
        "/dev/nvidiactl"
    ).exists()


def need_cpu(site: Path) -> None:
    """For what a GPU would take the place of."""
    if has_gpu(site):
        pytest.skip("a llama-cpp-python without CUDA is missing: this one computes on a GPU")


class Request:
    """Models and cases to compute in one process, plainly and held."""

    def __init__(self, site: Path, models: list[dict], **more: object) -> None:
        self.site = site
        self.models = models
        self.more = more  # for all processes

    def run(self, *, held: bool, mode: str = "always", cache: str = "", **more: object) -> dict:
        request = {"site": str(self.site), "held": held, "models": self.models, **more}
        # Threads of OpenMP that spin slow each other down tenfold on a busy machine.
        settings = {"OMP_WAIT_POLICY": "passive"}
        settings |= {"GGML_CONCURRENT": mode, "GGML_CONCURRENT_CACHE": cache}
        if mode == "stress":
            settings |= {"GGML_CONCURRENT": "always", "GGML_CONCURRENT_STRESS": "7"}
        result = subprocess.run(
            [sys.executable, str(PROGRAM), json.dumps(request)],
            check=False, capture_output=True, text=True, timeout=600,
            env={**os.environ, **settings},
        )  # fmt: skip
        assert result.returncode == 0, result.stderr[-3000:]
        return json.loads(result.stdout.splitlines()[-1])

    @functools.cached_property
    def plain(self) -> dict[str, dict[str, str]]:
        return self.run(held=False, **self.more)["digests"]

    def check(self, mode: str = "always", **more: object) -> dict:
        """The digests are those without us; what the drop-in says of the CPU."""
        result = self.run(held=True, mode=mode, **self.more, **more)
        for name, digests in self.plain.items():
            assert result["digests"][name] == digests, name
        assert all(device["failures"] == 0 for device in result["devices"]), result["devices"]
        return device_of(result)


def device_of(result: dict) -> dict:
    """What the drop-in says of the device that models are on: the GPU, where there is one."""
    return next((d for d in result["devices"] if d["name"] != "CPU"), result["devices"][-1])


def model_of(name: str, folder: Path, cases: list[str]) -> dict:
    """The weights of a tiny graph of the zoo, as a file that llama.cpp loads."""
    path, adapters = write_model(name, folder)
    return {"name": name, "path": str(path), "adapters": adapters, "cases": cases}


def gemma(site: Path, cases: list[str]) -> Request:
    return Request(site, [{"name": "gemma3-270m", "path": str(package_model()), "cases": cases}])


@pytest.fixture(scope="module")
def brief_gemma(site: Path) -> Request:
    return gemma(site, ["short_prompts", "flash_attention"])


@pytest.fixture(scope="module")
def tiny(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Request:
    cases = [name for name in CASES if name not in ELSEWHERE]
    return Request(site, [model_of(TINY, tmp_path_factory.mktemp("tiny"), cases)])


@pytest.fixture(scope="module")
def requests(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Request]:
    def make(names: list[str], cases: list[str]) -> Request:
        folder = tmp_path_factory.mktemp("models")
        return Request(site, [model_of(name, folder, cases) for name in names])

    return make


def check_on_streams(device: dict, least: float = 0.9) -> None:
    assert device["plans"] > 0, device
    assert device["own_us"] > 0, device
    assert device["on_streams"] >= least * device["graphs"], device


def test_gemma(site: Path) -> None:
    request = gemma(site, GEMMA)
    check_on_streams(request.check())
    digests = list(request.plain["gemma3-270m"].values())
    assert len(set(digests)) == len(digests), "cases differ, so logits are looked at"


def test_every_situation(tiny: Request) -> None:
    device = tiny.check()
    check_on_streams(device, 0.8)  # not where somebody watches, or can abort
    assert device["live"] == 1, "only what was left alive"
    digests = tiny.plain[TINY]
    assert digests["other_tokens"] != digests["short_prompts"], "other tokens, other hashes"


def test_every_situation_under_random_delays(tiny: Request) -> None:
    check_on_streams(tiny.check("stress"), 0.8)


def test_a_forked_process(requests: Callable[..., Request]) -> None:
    request = requests([TINY], ["forked"])
    need_cpu(request.site)  # the child of one that uses CUDA cannot use it, with or without us
    check_on_streams(request.check(), 0.5)
    check_on_streams(request.check("stress"), 0.5)


def test_a_sliding_window_under_random_delays(requests: Callable[..., Request]) -> None:
    check_on_streams(requests([WINDOWED], SITUATIONS).check("stress"), 0.6)


def test_other_architectures(requests: Callable[..., Request]) -> None:
    check_on_streams(requests(OTHERS, BRIEF).check("stress"))


def test_adapters(requests: Callable[..., Request]) -> None:
    check_on_streams(requests(ADAPTED, ["short_prompts", "adapters_change"]).check("stress"))


def gemma_adapters(folder: Path, n: int = 2, rank: int = 4) -> list[str]:
    """Random ones for some of Gemma's matrices, each adapter for other layers as well."""
    rng = np.random.default_rng(n)
    metadata = {
        "general.architecture": "gemma3",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 8.0,
    }
    paths = []
    with ggc.GGUF(package_model()) as file:
        for i in range(n):
            tensors = {}
            for name, info in file.tensors.items():
                _, layer, matrix, *_ = [*name.split("."), "", ""]
                if matrix in ("attn_q", "attn_v", "ffn_up") and int(layer) % 3 != i:
                    n_in, n_out = info.ne[:2]
                    a = rng.normal(0, n_in**-0.5, (rank, n_in)).astype(np.float32)
                    b = rng.normal(0, 1, (n_out, rank)).astype(np.float32)
                    tensors |= {f"{name}.lora_a": a, f"{name}.lora_b": b}
            paths.append(str(write_gguf(folder / f"{i}.gguf", metadata, tensors)))
    return paths


def test_adapters_of_gemma(site: Path, tmp_path: Path) -> None:
    cases = ["short_prompts", "adapters_change"]
    bare, adapted = gemma(site, cases[:1]), gemma(site, cases)
    adapted.models[0]["adapters"] = gemma_adapters(tmp_path)
    check_on_streams(adapted.check())
    digests = [r.plain["gemma3-270m"]["short_prompts"] for r in (bare, adapted)]
    assert digests[0] != digests[1], "adapters change the logits"


@pytest.fixture
def server(site: Path) -> Iterator[str]:
    """The address of one that computes what it is sent, without the drop-in."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [sys.executable, str(PROGRAM.with_name("rpc_server.py")), str(site)]
    endpoint = f"127.0.0.1:{port}"
    process = subprocess.Popen([*program, endpoint], stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            assert process.poll() is None, "the server has ended"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield endpoint
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("early", [False, True], ids=["known-later", "known-before"])
def test_layers_on_a_server(requests: Callable[..., Request], server: str, *, early: bool) -> None:
    """A graph is split over two backends then: the CPU's parts are on streams."""
    request = requests([TINY, "phi2-tiny"], ["short_prompts", "prompt_of_300", "small_batches"])
    need_cpu(request.site)
    request.more = {"server": server, "n_layers": 1, "early": early}
    result = request.run(held=True, **request.more)
    assert result["digests"] == request.plain
    devices = {device["name"]: device for device in result["devices"]}
    assert devices.keys() == {"CPU", "RPC0"}
    assert devices["RPC0"]["graphs"] > 0
    assert devices["RPC0"]["plans"] == devices["RPC0"]["on_streams"] == 0
    check_on_streams(devices["CPU"], 0.5)


def run_simulated(
    request: Request,
    n_devices: int = 1,
    refused: str = "",
    faults: tuple[str, ...] = (),
    failing: str = "",
    **more: str,
) -> dict[str, dict]:
    """On asynchronous devices that report what nothing orders: what the drop-in says of each, and
    as "simulation" what was counted there.
    """
    need_cpu(request.site)
    folder = need_built("tests", "cuda", "libggml-cuda-sim.so").parent
    request.more = {"simulated": str(folder), "n_devices": n_devices, "refused": refused}
    request.more |= {"faults": faults, "failing": failing}
    result = request.run(held=True, **request.more, **more)
    for name, digests in request.plain.items():
        assert result["digests"][name] == digests, name
    simulation = result["simulation"]
    assert simulation["races"][0] == simulation["errors"][0] == 0, simulation
    assert simulation["launches"] > simulation["graphs"] > 0, simulation
    devices = {device["name"]: device for device in result["devices"]}
    n_backends = sum(devices[f"CUDA{i}"]["backends"] for i in range(n_devices))
    assert simulation["instances"] <= MOST_STREAMS * n_backends, "graphs share their streams"
    assert (devices["CUDA1"]["graphs"] > 0) == (n_devices == 2), "some layers are there"
    failed = [name for name, device in devices.items() if device["failures"]]
    assert failed == (["CUDA0"] if faults else []), devices
    return devices | {"simulation": simulation}


@pytest.mark.parametrize("n_devices", [1, 2])
@pytest.mark.parametrize(
    ("names", "cases"),
    [([TINY], SIMULATED), (OTHERS, BRIEF[:2]), (ADAPTED, ["adapters_change"])],
    ids=["situations", "architectures", "adapters"],
)
def test_on_a_simulated_cuda(
    requests: Callable[..., Request], names: list[str], cases: list[str], n_devices: int
) -> None:
    check_on_streams(run_simulated(requests(names, cases), n_devices)["CUDA0"], 0.5)


@pytest.mark.parametrize("failing", ["", "cuGraphExecUpdate_v2"], ids=["updated", "made-anew"])
def test_a_graph_that_grows(requests: Callable[..., Request], failing: str) -> None:
    """Where llama.cpp builds its graph anew for a larger cache, the CUDA graph is kept."""
    told = run_simulated(requests([TINY], ["many_tokens"]), failing=failing)
    counted = told["simulation"]
    n_tokens, n_sizes = 320, 2
    assert told["CUDA0"]["backends"] == 1
    assert told["CUDA0"]["plans"] == 1 + n_sizes, "of the prompt, and of each size"
    assert (counted["graphs"], counted["updates"]) == (1 + bool(failing), n_sizes - 1), counted
    assert counted["launches"] == n_tokens - 1, "the first token is issued, to fill the pools"


def test_ways_are_timed_on_a_simulated_cuda(
    requests: Callable[..., Request], tmp_path: Path
) -> None:
    request = requests(["llama-lora2-tiny"], ["many_tokens"])
    for again in (False, True):
        device = run_simulated(request, mode="eager", cache=str(tmp_path))["CUDA0"]
        assert again or device["on_streams"] > 0, "streams were tried"
        kept = sorted(path.read_text() for path in tmp_path.iterdir())
        assert kept, "a choice was made"
        graphs = 2 * len(kept)  # before and after the cache has grown
        assert (device["plans"] <= graphs) == again, "nothing is tried again"


@pytest.mark.parametrize("refused", ["ROPE", "GLU", "GET_ROWS"])
def test_operations_that_a_device_does_not_have(
    requests: Callable[..., Request], refused: str
) -> None:
    """Graphs are cut there, and what one part makes is read by later ones on the same device."""
    names = [TINY, "falcon-tiny", "phi2-tiny", "qwen2moe-tiny"]
    devices = run_simulated(requests(names, BRIEF[:3]), refused=refused)
    assert devices["CUDA0"]["on_streams"] > 0, devices


def test_every_failing_call_leaves_the_logits_right(requests: Callable[..., Request]) -> None:
    """Of those to the simulated driver: it is done without a CUDA graph, or as without us."""
    request = requests([TINY], ["short_prompts"])
    device = run_simulated(request, faults=FAULTS)["CUDA0"]
    assert len(set(request.plain[TINY].values())) == 1, "always the same prompts"
    assert device["failures"] >= len(FAULTS) - 2, "but for what the stopwatch calls first"
    check_on_streams(device, 0.5)


def test_embeddings(requests: Callable[..., Request]) -> None:
    check_on_streams(requests([TINY], ["embeddings", "pooled"]).check("stress"))
    check_on_streams(requests(ENCODERS[:1], ["encoded"]).check("stress"))


@pytest.mark.parametrize("when", ["idle", "decoding"])
def test_a_process_that_ends_abruptly_does_not_hang(
    requests: Callable[..., Request], when: str
) -> None:
    check_on_streams(requests([TINY], ["left_alive"]).check(abruptly=when))


def test_by_default(brief_gemma: Request) -> None:
    """Whatever is chosen."""
    device = brief_gemma.check("auto")
    assert device["graphs"] > 0


def test_what_was_found_is_kept(requests: Callable[..., Request], tmp_path: Path) -> None:
    """Ways are timed once; the next processes do what the file says, whatever that is, where it
    says that graphs come again often and much is saved.
    """
    request = requests(["llama-lora2-tiny"], ["many_tokens"])
    first = request.check("eager", cache=str(tmp_path))
    assert first["plans"] > 0
    assert first["on_streams"] > 0, "a way on streams was tried"
    (kept,) = tmp_path.iterdir()
    head, ways = split_ways(kept.read_text())
    untouched = 1 + 2  # the prompt, which does not come again; and until the first graph has
    for number, best in enumerate(ways):
        slow = [with_time(way, 10**9) for way in ways if way != best]
        end = ["repeats 1000000\n", "end\n"]
        kept.write_text("".join([*head, with_time(best, 1), *slow, *end]))
        device = request.check("auto", cache=str(tmp_path))
        on_streams = 0 if " serial " in best else device["graphs"] - untouched
        assert device["on_streams"] == on_streams, (number, best, device)


def split_ways(text: str) -> tuple[list[str], list[str]]:
    """A file's lines before and in the list of ways, the fastest of which is first."""
    lines = text.splitlines(keepends=True)
    ways = [line for line in lines if line.startswith("way ")]
    assert {line.split()[1] for line in ways} == {"serial", "list"}
    return lines[: lines.index(ways[0])], ways


def with_time(way: str, nanoseconds: int) -> str:
    """The same line with another time."""
    return f"{way.rpartition(' ')[0]} {nanoseconds}\n"


def test_switched_off(brief_gemma: Request) -> None:
    device = brief_gemma.check("off")
    assert device["graphs"] > 0
    assert device["on_streams"] == device["plans"] == 0


@pytest.mark.parametrize("how", [[], ["--alone"]], ids=["in-turns", "alone"])
def test_figures_can_be_measured(site: Path, tmp_path: Path, how: list[str]) -> None:
    """The script that measures, on a tiny model."""
    times = tmp_path / "times.json"
    small = ["--rounds", "2", "--cold-rounds", "1", "--tokens", "4", "--tuning", "8"]
    result = subprocess.run(
        [
            *(sys.executable, str(ROOT / "scripts" / "dropin_figures.py"), TINY, *small),
            *("--json", str(times), *how),
        ],
        check=False, capture_output=True, text=True, timeout=300,
        env={**os.environ, "GGC_RUNNER_DIR": str(site)},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(f"| {TINY} |") == 3
    (measured,) = json.loads(times.read_text())
    ways = ("plain", "plain-again", "default")
    assert measured["same_bits"] == dict.fromkeys(ways, True)
    assert set(measured["ms"]) == set(ways)
    rounds = dict.fromkeys(("row", "prompt", "1", "4", "16"), 2)
    lives = dict.fromkeys(("cold first", "cold answer", "known first", "known answer"), 1)
    ours = dict.fromkeys(("cold first, ours", "known first, ours"), 1)
    for way, found in measured["ms"].items():
        counts = {what: len(values) for what, values in found.items()}
        assert counts == rounds | lives | (ours if way == "default" else {})
