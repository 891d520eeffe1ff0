"""Graphs on a device with Metal's semantics: tests/metal/sim.h.

What encodes the graphs is ggml-metal itself; kernels between two barriers run in any order or two
at a time. The results must have the bits of the CPU's serial run, whatever the order, and no two
kernels without a barrier between them may conflict.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from metal_compare import Metal
from metal_run import get_tensor
from metal_sim import Report, Sim, on_metal, simulated_or_skipped
from test_zoo import FULL, TINY, assert_same_bits, plain_results
from tools import ROOT, normal_build, run

import ggml_concurrent as ggc
from ggml_concurrent import zoo

METAL = ROOT / "vendor" / "ggml" / "src" / "ggml-metal"

#: Graphs with a node that ggml-metal cannot compute; under the scheduler the CPU does.
UNSUPPORTED = {"qwen3next-tiny": "GATED_DELTA_NET wants heads of 32 or a multiple"}

#: The same, with attention in one operation: ggml-metal has no kernel for such small heads.
UNSUPPORTED_FLASH = {
    *UNSUPPORTED,
    *("bert-tiny", "cohere2-tiny", "command-r-tiny", "falcon-h1-tiny", "falcon-tiny"),
    *("flux-double-tiny", "gptj-tiny", "llama-lora-tiny", "llama-lora2-tiny", "llama-tiny"),
    "llama-x4-tiny",
    *("mmdit-tiny", "mmdit-x-tiny", "phi2-tiny", "qwen2moe-tiny", "whisper-tiny"),
}

SEEDS = range(int(os.environ.get("GGC_TEST_METAL_SEEDS", "3")))


@pytest.fixture(scope="module")
def sim() -> Iterator[Sim]:
    with simulated_or_skipped() as opened:
        yield opened


def plan_order(name: str, **options: object) -> list[int]:
    with zoo.build(name, **options) as workload:
        return ggc.find_concurrency(workload.graph, fuse="metal").order


# --- ggml-metal alone ----------------------------------------------------------------------------


def run_or_refused(
    sim: Sim, workload: zoo.Workload, way: str, order: list[int] | None, refused: bool
) -> tuple[dict[str, np.ndarray], Report] | None:
    if not refused:
        return sim.run(workload, way, order)
    with pytest.raises(ggc.Error, match="ggml-metal cannot compute"):
        sim.run(workload, way, order)
    return None


@pytest.mark.parametrize("flash_attn", [False, True], ids=["", "flash"])
@pytest.mark.parametrize("way", ["plain", "reorder", "phases"])
@pytest.mark.parametrize("name", TINY)
def test_bits_are_those_of_the_cpu(sim: Sim, name: str, way: str, flash_attn: bool) -> None:
    """In its own order, reordered by ggml-metal, and by our phases before ggml allocates it."""
    refused = way != "reorder" and name in (UNSUPPORTED_FLASH if flash_attn else UNSUPPORTED)
    expected = plain_results(name, flash_attn=flash_attn)
    order = plan_order(name, flash_attn=flash_attn) if way == "phases" else None
    encoded = set()
    for seed in SEEDS:
        sim.seed(seed)
        with zoo.build(name, flash_attn=flash_attn) as workload:
            kind = "plain" if order else way
            results = run_or_refused(sim, workload, kind, order, refused)
        if results is None:
            return
        found, report = results
        assert_same_bits(found, expected)
        assert report.faults == ""
        encoded.add((report.kernels, report.barriers, report.command_buffers))
    (numbers,) = encoded  # whatever the seed
    assert min(numbers) > 0


# --- the simulation finds what is wrong ----------------------------------------------------------


def test_order_found_before_allocation_is_wrong_after_it(sim: Sim) -> None:
    """The mistake that every concurrency of ggml has made once: memory is for one order."""
    expected = plain_results("towers-tiny")
    sim.seed(0)
    with zoo.build("towers-tiny") as workload:
        found, report = sim.run(workload, "late", plan_order("towers-tiny"))
    assert report.races == 0  # the tracker sees to that, and orders what it is given
    assert any(found[name].tobytes() != array.tobytes() for name, array in expected.items())


def reports_without_barriers(sim: Sim, name: str, order: list[int] | None) -> list[Report]:
    """One report for each barrier that is left out."""
    reports = []
    with zoo.build(name) as workload:
        whole = sim.encode(workload, "plain", order)
        assert whole.faults == ""
        for barrier in range(whole.barriers):
            with sim.without_barrier(barrier):
                reports.append(sim.encode(workload, "plain", order))
    return reports


@pytest.mark.parametrize("name", ["llama-tiny", "qwen2moe-tiny", "towers-tiny"])
def test_missing_barrier_is_told(sim: Sim, name: str) -> None:
    """All but those that ggml-metal sets where ranges only touch."""
    reports = reports_without_barriers(sim, name, None)
    told = sum(report.races > 0 for report in reports)
    assert told >= 0.9 * len(reports)
    for report in reports:
        assert bool(report.races) == ("and no barrier is between them" in report.first)


def test_missing_barrier_is_told_by_name(sim: Sim) -> None:
    """The very first one: the first product, and what reads it."""
    (first, *_) = reports_without_barriers(sim, "towers-tiny", None)
    assert first.races == 1
    assert re.fullmatch(
        r"MUL_MAT '\S+' writes what \S+ '\S+' \w+, and no barrier is between them", first.first
    )


def test_missing_barrier_changes_results(sim: Sim) -> None:
    """The races are real: some order that the device may choose gives other bits."""
    expected = plain_results("towers-tiny")
    order = plan_order("towers-tiny")
    changed = 0
    for seed in range(1, 9):
        sim.seed(seed)
        with zoo.build("towers-tiny") as workload, sim.without_barrier(1):
            found, report = sim.run(workload, "plain", order)
        assert report.races > 0
        changed += any(found[n].tobytes() != array.tobytes() for n, array in expected.items())
    assert changed > 0


def test_results_are_not_there_before_somebody_waits(sim: Sim) -> None:
    expected = plain_results("towers-tiny")
    with zoo.build("towers-tiny") as workload:
        n_outputs = len(workload.graph.outputs)
        found, report = sim.run(workload, "plain", wait=False)
    assert report.hasty == n_outputs > 0
    assert report.first == "a tensor is read while commands are under way"
    assert any(found[name].tobytes() != array.tobytes() for name, array in expected.items())


def test_fused_kernel_keeps_what_is_between_to_itself(sim: Sim) -> None:
    """Memory of a norm that is fused with what follows is not touched, as on the GPU."""
    x = np.linspace(-1, 1, 64, dtype=np.float32)
    with ggc.Graph() as g:
        norm = g.rms_norm(g.input("x", "f32", ne=(64,)), eps=1e-6)
        g.output(g.mul(norm, g.input("w", "f32", ne=(64,))), "y")
        with ggc.Runner(g, device="metal", tune="off", always=True) as runner:
            sim.reset()
            found = runner.run(x=x, w=2 * x)["y"]
            assert sim.report().kernels == 1
            assert not get_tensor(norm._ptr).any()
    assert_same_bits({"y": found}, {"y": expected_norm(x, 2 * x)})


def expected_norm(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    with ggc.Graph() as g:
        norm = g.rms_norm(g.input("x", "f32", ne=x.shape), eps=1e-6)
        g.output(g.mul(norm, g.input("w", "f32", ne=w.shape)), "y")
        with ggc.Runner(g, streams=1) as runner:
            return runner.run(x=x, w=w)["y"]


def run_with_description(program: str, description: str) -> str:
    """What a Python program prints that finds a device of this name."""
    result = run(
        *(sys.executable, "-c", program),
        GGC_METAL_SIM_DESCRIPTION=description,
        PYTHONPATH=os.pathsep.join([str(ROOT / "tests" / "python"), *sys.path]),
    )
    return result.stdout


def test_description_and_its_consequence(sim: Sim) -> None:
    """What a Mac with another GPU calls itself, and that it has memory of its own there."""
    program = (
        "import ctypes\n"
        "from metal_sim import simulated\n"
        "from ggml_concurrent import _native\n"
        "with simulated():\n"
        "    base = ctypes.CDLL(str(_native._LIBRARIES / 'libggc-ggml.so'))\n"
        "    for f in 'ggml_backend_dev_by_name', 'ggml_backend_dev_description',\\\n"
        "             'ggml_backend_dev_buffer_type', 'ggml_backend_buft_name':\n"
        "        getattr(base, f).restype = ctypes.c_void_p\n"
        "        getattr(base, f).argtypes = [ctypes.c_void_p]\n"
        "    device = base.ggml_backend_dev_by_name(ctypes.c_char_p(b'MTL0'))\n"
        "    print(ctypes.string_at(base.ggml_backend_dev_description(device)).decode())\n"
        "    buft = base.ggml_backend_dev_buffer_type(device)\n"
        "    print(ctypes.string_at(base.ggml_backend_buft_name(buft)).decode())\n"
    )
    for description, memory in ("AMD Radeon Pro", "MTL0_Private"), ("Apple M1", "MTL0"):
        assert run_with_description(program, description).splitlines() == [description, memory]


# --- our dispatcher ------------------------------------------------------------------------------

#: Ways of running a graph by phases: memory for each tensor, or shared between phases.
BY_PHASE = {"tune": "off", "always": True}
SHARED = {**BY_PHASE, "budget": 0}


@pytest.mark.parametrize("flash_attn", [False, True], ids=["", "flash"])
@pytest.mark.parametrize("name", TINY)
def test_runner_gives_the_bits_of_the_cpu(sim: Sim, name: str, flash_attn: bool) -> None:
    """In its serial order and by phases, whatever the device and the dispatcher shuffle."""
    if name in (UNSUPPORTED_FLASH if flash_attn else UNSUPPORTED):
        with (
            on_metal(name, flash_attn=flash_attn) as workload,
            pytest.raises(ggc.DeviceError, match=r"MTL0 backend cannot compute node \d+"),
        ):
            workload.runner(device="metal")
        return
    expected = plain_results(name, flash_attn=flash_attn)
    for seed in SEEDS:
        sim.seed(seed)
        for arguments in ({"streams": 1}, BY_PHASE, SHARED):
            with (
                on_metal(name, flash_attn=flash_attn) as workload,
                workload.runner(device="metal", stress_seed=seed, **arguments) as runner,
            ):
                sim.reset()
                found = workload.run(runner)
                sim.report().check(runner.metal)
            assert_same_bits(found, expected)


def metal_encodes(sim: Sim, name: str, **arguments: object) -> Report:
    """What is encoded for a runner; nothing is computed."""
    with (
        sim.dry(),
        zoo.build(name, weights=False, flash_attn=True) as workload,
        sim.metal.weights(workload),
        workload.runner(device="metal", **arguments) as runner,
    ):
        sim.reset()
        runner.compute()
        sim.report().check(runner.metal)
        return sim.report()


@pytest.mark.parametrize("name", FULL)
def test_predictions_for_real_sizes(sim: Sim, name: str) -> None:
    """And never more barriers or command buffers than ggml-metal makes without us.

    Its reorder brings nodes together that it then fuses, with other results; a barrier is granted
    for each kernel that it saves so.
    """
    by_phase = metal_encodes(sim, name, **BY_PHASE)
    assert metal_encodes(sim, name, **SHARED).barriers == by_phase.barriers
    metal_encodes(sim, name, streams=1)
    for way in ("plain", "reorder"):
        with zoo.build(name, weights=False, flash_attn=True) as workload:
            theirs = sim.encode(workload, way)
        assert theirs.faults == ""
        fused_anew = max(0, by_phase.kernels - theirs.kernels) if way == "reorder" else 0
        assert by_phase.kernels <= theirs.kernels + fused_anew
        assert by_phase.inner_barriers == theirs.inner_barriers
        assert by_phase.barriers <= theirs.barriers + fused_anew
        assert by_phase.command_buffers <= theirs.command_buffers


def test_tuned_runner_settles_with_the_same_bits(sim: Sim) -> None:
    expected = plain_results("towers-tiny")
    sim.seed(5)
    sim.reset()
    with on_metal("towers-tiny") as workload, workload.runner(device="metal") as runner:
        assert len(runner.ways) > 1
        while not runner.settled:
            assert_same_bits(workload.run(runner), expected)
        assert_same_bits(workload.run(runner), expected)
    assert sim.report().faults == ""


#: Barriers of ours that no byte needs: ggml-metal compares whole tensors, and these graphs write to
#: parts of one tensor that do not meet.
NEEDLESS = {"whisper-cross-tiny": 1}


@pytest.mark.parametrize("name", [name for name in TINY if name not in UNSUPPORTED])
def test_phase_boundary_that_is_left_out_is_told(sim: Sim, name: str) -> None:
    """Each of them: our order has no barrier that nothing needs."""
    with (
        sim.dry(),
        on_metal(name) as workload,
        workload.runner(device="metal", **BY_PHASE) as runner,
    ):
        sim.reset()
        runner.compute()
        n_barriers = sim.report().barriers
        n_silent = 0
        for barrier in range(n_barriers):
            sim.reset()
            with sim.without_barrier(barrier):
                runner.compute()
            n_silent += sim.report().races == 0
    assert n_barriers > n_silent
    assert n_silent == NEEDLESS.get(name, 0)


def test_overlapping_tensors_of_a_phase_are_told(sim: Sim) -> None:
    """By a barrier that nobody predicted: ggml-metal's tracker goes by where tensors lie."""
    expected = plain_results("towers-tiny")
    with on_metal("towers-tiny") as workload, workload.runner(device="metal", **BY_PHASE) as runner:
        nodes, (a, b, *_) = workload.graph.nodes, runner.plan.phases[2]
        predicted = runner.metal
        assert predicted is not None
        nodes[b]._ptr.data = nodes[a]._ptr.data
        sim.reset()
        found = workload.run(runner)
        assert sim.report().barriers > predicted.barriers
    assert any(found[name].tobytes() != array.tobytes() for name, array in expected.items())


def test_runner_is_serial_where_metal_is_not_apples(sim: Sim) -> None:
    """Concurrent encoders compute wrong results there (llama.cpp#19567, #25866)."""
    program = (
        "import warnings\n"
        "from metal_sim import on_metal, simulated\n"
        "from test_zoo import assert_same_bits, plain_results\n"
        "expected = plain_results('towers-tiny')\n"
        "with simulated() as sim, warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    sim.seed(3)\n"
        "    with on_metal('towers-tiny') as w, w.runner(device='metal', always=True) as r:\n"
        "        sim.reset()\n"
        "        assert_same_bits(w.run(r), expected)\n"
        "        report = sim.report()\n"
        "        print(report.widest, len(r.ways), report.faults)\n"
        "    print(*(str(w.message) for w in caught))\n"
    )
    result = run_with_description(program, "AMD Radeon Pro 5500M")
    numbers, warning = result.splitlines()
    assert numbers.split() == ["1", "1"], result  # one kernel at a time, one way
    assert "AMD Radeon Pro 5500M" in warning


# --- scripts -------------------------------------------------------------------------------------


def script(name: str) -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / name))


def test_figures_script(sim: Sim) -> None:
    figures = script("metal_figures.py")
    compare = Metal(normal_build() / "tests" / "metal_compare.so")
    rows = [figures["measure"](sim, compare, name) for name in ("llama-1b", "towers-256")]
    heads, rule, llama, towers = figures["table"](rows).splitlines()
    assert {line.count("|") for line in (heads, rule, llama, towers)} == {13}
    assert llama.startswith("| llama-1b | 1 | ")
    assert figures["barriers"](rows[1].ours) == rows[1].minimum - 1 == 14
    assert "over 2 graphs" in figures["summary"](rows)


def test_report_script(sim: Sim, tmp_path: Path) -> None:
    report = script("metal_report.py")
    founds = [report["investigate"](sim.metal, name, 1) for name in ("towers-tiny", "no-such")]
    text = report["report"](founds, 1, "Metal")
    assert all(founds[0].same_bits.values())
    assert founds[0].difference["cpu"] == 0
    assert re.search(
        r"^\| towers-tiny \| yes \|( \d+ \|){4}( [\d.]+ \|){2} 0.0e\+00 \|$", text, re.MULTILINE
    )
    assert "| no-such | no graph 'no-such' in the zoo" in text
    raw = json.loads(text.split("```json\n")[1].split("```")[0])
    assert [g["name"] for g in raw["graphs"]] == ["towers-tiny", "no-such"]


# --- what the simulation takes for granted about ggml-metal's Objective-C -------------------------

#: File -> text that the stand-ins in tests/metal/sim_*.cpp go by.
ASSUMED = {
    "ggml-metal-context.m": (
        "const int n_main = MAX(64, 0.1*gf->n_nodes);",
        "ctx->n_nodes_0      = MIN(n_main, gf->n_nodes);",
        "ctx->n_nodes_1      = gf->n_nodes - ctx->n_nodes_0;",
        "ctx->n_nodes_per_cb = (ctx->n_nodes_1 + ctx->n_cb - 1) / ctx->n_cb;",
        "idx_start = n_nodes_0 + ( (cb_idx + 0) * n_nodes_per_cb);",
        "(MIN((cb_idx == n_cb_l - 1) ? n_nodes_1 : (cb_idx + 1) * n_nodes_per_cb, n_nodes_1));",
        'res->use_concurrency = getenv("GGML_METAL_CONCURRENCY_DISABLE") == nil;',
    ),
    "ggml-metal-device.m": (
        "computeCommandEncoderWithDispatchType: MTLDispatchTypeConcurrent",
        "[encoder->obj memoryBarrierWithScope:MTLBarrierScopeBuffers];",
        "dev->props.use_shared_buffers = dev->props.has_unified_memory;",
    ),
    "ggml-metal.cpp": ("ggml_backend_metal_set_n_cb(backend, 1);",),
}


@pytest.mark.parametrize("name", ASSUMED)
def test_ggml_metal_is_as_the_stand_ins_assume(name: str) -> None:
    if not METAL.exists():
        pytest.skip("ggml's source is elsewhere")
    text = " ".join((METAL / name).read_text(encoding="utf-8").split())
    assert [part for part in ASSUMED[name] if " ".join(part.split()) not in text] == []
