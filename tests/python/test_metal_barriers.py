"""Our barriers against those of ggml-metal's own reorder and range tracker, on the same graphs.

Ours are fewer or as many on every graph, and the minimum: one less than the longest chain of
kernels that conflict, found by comparing all pairs. Two things are told apart:

- ggml-metal's reorder may bring nodes together that were apart, and its encoder then fuses them: a
  kernel fewer, and at most a barrier fewer. Those are granted to it.
- A unit of ours that turns out to be several kernels may cost barriers: better than a fusion lost.

Every comparison also checks that no fusion of ggml-metal, wherever it may begin, lies across two of
our units, and that the verifier accepts our phases.
"""

from __future__ import annotations

import os

import pytest
from metal_compare import GRAPHS, MEMORIES, Figures, Metal, built
from tools import need_built

from ggml_concurrent import zoo

N_RANDOM = int(os.environ.get("GGC_TEST_ITER", "300"))  # graphs, each in every kind of memory


@pytest.fixture(scope="module")
def metal() -> Metal:
    return Metal(need_built("tests", "metal_compare.so"))


def assert_fewest(f: Figures) -> None:
    assert f.phase_barriers == f.phase_minimum
    assert f.minimum <= f.ours <= f.plain
    assert f.ours <= f.reorder + f.fused_anew
    assert f.ours == f.minimum or f.units < f.kernels


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("name", GRAPHS)
def test_barriers_of_known_graphs(metal: Metal, name: str, memory: str) -> None:
    with built(name) as graph:
        figures = metal.compare(graph, memory)
    assert_fewest(figures)
    assert figures.ours == figures.minimum < figures.plain
    if memory != "allocated":  # where ranges touch, ggml-metal's tracker sees more than there is
        assert figures.tracked == figures.ours


@pytest.mark.parametrize("memory", MEMORIES)
def test_barriers_of_random_graphs(metal: Metal, memory: str) -> None:
    fewer = more_than_minimum = 0
    for seed in range(N_RANDOM):
        with metal.random_graph(seed, 1 + seed % 60) as graph:
            figures = metal.compare(graph, memory)
        assert_fewest(figures)
        fewer += figures.ours < figures.reorder
        more_than_minimum += figures.ours > figures.minimum
    assert fewer > N_RANDOM // 2  # or the graphs have nothing to gain
    assert more_than_minimum <= N_RANDOM // 20


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("name", [name for name in zoo.GRAPHS if name.endswith("-tiny")])
def test_barriers_of_the_zoo(metal: Metal, name: str, memory: str) -> None:
    with zoo.build(name) as workload:
        figures = metal.compare(workload.graph.address, memory)
    assert_fewest(figures)
    assert figures.ours < figures.plain


def test_graph_is_as_it_was(metal: Metal) -> None:
    with metal.random_graph(4, 30) as graph:
        first = {memory: metal.compare(graph, memory) for memory in MEMORIES}
        assert {memory: metal.compare(graph, memory) for memory in MEMORIES} == first


def test_planning_is_no_slower_than_the_reorder(metal: Metal) -> None:
    """Loosely: the machine has other things to do."""
    with metal.layered_graph(100) as graph:
        reorder, plan = metal.time(graph, 20)
    assert plan < 2 * reorder
