"""Runner and Store with device="metal", simulated; the bits of graphs: test_metal_sim.py."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from metal_sim import Sim, module, simulated
from tools import ROOT, need_built, run

import ggml_concurrent as ggc
from ggml_concurrent._native import ffi, ggml

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="there is a Metal device here")

X = np.linspace(-1, 1, 32, dtype=np.float32)


@pytest.fixture
def sim() -> Iterator[Sim]:
    need_built("tests", module().name)
    with simulated() as opened:
        yield opened


def chains(g: ggc.Graph, n: int = 4, length: int = 5) -> None:
    """Chains that do not meet, one after another."""
    x = g.input("x", "f32", ne=(32,))
    for i in range(n):
        y = x
        for _ in range(length):
            y = g.sqr(y) if i % 2 else g.relu(y)
        g.output(y, name=f"y{i}")


def node_addresses(g: ggc.Graph) -> list[int]:
    n = ggml.ggml_graph_n_nodes(g._graph)
    return [int(ffi.cast("uintptr_t", ggml.ggml_graph_node(g._graph, i))) for i in range(n)]


# --- what is refused -----------------------------------------------------------------------------


def test_without_metal_it_is_told() -> None:
    with ggc.Graph() as g:
        chains(g)
        with pytest.raises(ggc.DeviceError, match="there is no Metal device"):
            ggc.Runner(g, device="metal")
        with ggc.Runner(g) as runner:  # the graph is free for others
            runner.run(x=X)
            assert runner.device == "cpu"
            assert runner.metal is None
            assert runner.metal_in_order is None
    with pytest.raises(ggc.DeviceError, match="there is no Metal device"):
        ggc.Store(device="metal")


def test_trace_is_refused(sim: Sim) -> None:
    with ggc.Graph() as g:
        chains(g)
        with pytest.raises(ggc.GraphError, match="Metal does not tell when a unit runs"):
            ggc.Runner(g, device="metal", trace=True)


def test_weights_elsewhere_are_refused(sim: Sim) -> None:
    with ggc.Store() as store, ggc.Graph() as g:
        w = store.array("w", np.eye(32, dtype=np.float32))
        g.output(g.mul_mat(w, g.input("x", "f32", ne=(32,))), name="y")
        with pytest.raises(ggc.GraphError, match="'w', whose memory MTL0 cannot use"):
            ggc.Runner(g, device="metal")


def test_cpu_refuses_weights_of_metal(sim: Sim) -> None:
    with ggc.Store(device="metal") as store, ggc.Graph() as g:
        w = store.array("w", np.eye(32, dtype=np.float32))
        g.output(g.mul_mat(w, g.input("x", "f32", ne=(32,))), name="y")
        with pytest.raises(ggc.GraphError, match="'w', whose memory CPU cannot use"):
            ggc.Runner(g)
        with ggc.Runner(g, device="metal") as runner:
            assert np.array_equal(runner.run(x=X)["y"], X)
            with pytest.raises(ggc.GraphError, match="whose memory CPU cannot use"):
                ggc.compute_serial(g)


# --- what it does --------------------------------------------------------------------------------


def test_store_reads_and_writes(sim: Sim) -> None:
    with ggc.Store(device="metal") as store:
        w = store.array("w", X)
        assert store.device == "metal"
        assert np.array_equal(w.numpy(), X)
        assert not store.zeros("z", "f32", ne=8).numpy().any()


def test_phases_need_fewer_barriers(sim: Sim) -> None:
    with ggc.Graph() as g:
        chains(g)
        with ggc.Runner(g, device="metal", always=True) as runner:
            ours, plain = runner.metal, runner.metal_in_order
        assert ours is not None
        assert plain is not None
        assert (ours.kernels, ours.barriers, ours.command_buffers) == (20, 4, 1)
        assert (plain.kernels, plain.barriers) == (20, 16)
        assert ours.microseconds < plain.microseconds


@pytest.mark.parametrize("budget", [0, None])
def test_nodes_keep_their_order(sim: Sim, budget: int | None) -> None:
    with ggc.Graph() as g:
        chains(g)
        before = node_addresses(g)
        with ggc.Runner(g, device="metal", always=True, budget=budget) as runner:
            assert node_addresses(g) == before
            runner.run(x=X)
        assert node_addresses(g) == before


def test_shared_memory_is_for_one_order(sim: Sim) -> None:
    with ggc.Graph() as g:
        chains(g, length=20)
        with ggc.Runner(g, device="metal") as runner:
            apart = runner.buffer_size
            assert [way.streams for way in runner.ways] == [1, 2]
        with ggc.Runner(g, device="metal", budget=0) as runner:
            assert runner.buffer_size < apart / 2
            assert [way.streams for way in runner.ways] == [2]
            first = runner.run(x=X)
            assert all(np.array_equal(first[n], v) for n, v in runner.run(x=X).items())
        with ggc.Runner(g, device="metal", budget=0, streams=1) as runner:
            assert [way.streams for way in runner.ways] == [1]
            found = runner.run(x=X)
            runner.compute()  # inputs are still there
            for name, values in found.items():
                assert np.array_equal(values, first[name])
                assert np.array_equal(values, runner.get(name))


def test_untuned_goes_by_the_model(sim: Sim) -> None:
    with ggc.Graph() as g:
        chains(g)
        with ggc.Runner(g, device="metal", tune="off") as runner:
            assert [way.streams for way in runner.ways] == [2]
    with ggc.Graph() as g:
        chains(g, n=1)
        with ggc.Runner(g, device="metal", tune="off") as runner:  # nothing to gain
            assert [way.streams for way in runner.ways] == [1]


def test_graph_can_be_run_elsewhere_afterwards(sim: Sim) -> None:
    with ggc.Graph() as g:
        chains(g)
        with ggc.Runner(g, device="metal", always=True) as runner:
            found = runner.run(x=X)
        with ggc.Runner(g) as runner:
            for name, values in runner.run(x=X).items():
                assert np.array_equal(values, found[name])


# --- in other environments -----------------------------------------------------------------------

PROGRAM = """
import os, warnings
import numpy as np
from metal_sim import on_metal, simulated
from test_zoo import assert_same_bits, plain_results

with warnings.catch_warnings(record=True) as caught, simulated() as sim:
    warnings.simplefilter("always")
    for seed in range(3):
        sim.seed(seed)
        with on_metal("llama-tiny") as workload, workload.runner(
            device="metal", always=True
        ) as runner:
            sim.reset()
            found = workload.run(runner)
            report, predicted = sim.report(), runner.metal
            assert report.barriers == predicted.barriers + predicted.inner_barriers
            assert report.kernels == predicted.kernels
            assert report.command_buffers == predicted.command_buffers
            assert report.faults == "", report.faults
        assert_same_bits(found, plain_results("llama-tiny"))
    print(predicted.kernels, predicted.command_buffers)
    print(os.environ.get("GGML_METAL_CONCURRENCY_DISABLE"))
    print(*(str(warning.message) for warning in caught), sep="\\n")
"""


def llama_in(**environment: str) -> list[str]:
    need_built("tests", module().name)
    result = run(
        *(sys.executable, "-c", PROGRAM),
        PYTHONPATH=os.pathsep.join([str(ROOT / "tests" / "python"), *sys.path]),
        **environment,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout.splitlines()


def test_other_gpus_compute_serially_and_say_so() -> None:
    kernels, variable, *told = llama_in(GGC_METAL_SIM_DESCRIPTION="AMD Radeon Pro 5500M")
    assert variable == "None"  # the environment is as it was
    assert len(set(told)) == 1
    assert "wrong results with concurrency on AMD Radeon Pro 5500M" in told[0]
    assert kernels == llama_in()[0]


def test_fusion_can_be_off() -> None:
    fused, apart = llama_in()[0], llama_in(GGML_METAL_FUSION_DISABLE="1")[0]
    assert int(apart.split()[0]) > int(fused.split()[0])


def test_apple_says_nothing() -> None:
    assert llama_in()[1:] == ["None", ""]
