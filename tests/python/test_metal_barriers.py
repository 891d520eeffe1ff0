"""Our barriers against those of ggml-metal's own reorder and range tracker, on the same graphs.

Ours are fewer or as many on every graph, and the minimum: one less than the longest chain of units
that conflict, which the library finds by comparing all pairs. `tracked` is what ggml-metal's tracker
makes of our order. It may be more than ours: the tracker takes a view for all of the tensor that it
shows, and ranges that only touch for overlapping.

Every comparison also checks that no fusion of ggml-metal lies across two of our units.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from metal_compare import GRAPHS, Barriers, Metal, built
from tools import ROOT

# The number of random graphs; each is compared before and after allocation.
N_RANDOM = int(os.environ.get("GGC_TEST_ITER", "300"))
MEMORY = pytest.mark.parametrize("allocated", [False, True], ids=["unallocated", "allocated"])


@pytest.fixture(scope="module")
def metal() -> Metal:
    build = Path(os.environ.get("GGC_BUILD_DIR", ROOT / "build" / "editable"))
    path = build / "tests" / "metal_compare.so"
    if not path.exists():
        pytest.skip("metal_compare is not built: run scripts/test, or set GGC_BUILD_DIR")
    return Metal(path)


def assert_minimal(b: Barriers) -> None:
    assert b.ours == b.minimum
    assert b.ours <= b.reorder
    assert b.ours <= b.plain
    assert b.ours <= b.tracked


@MEMORY
@pytest.mark.parametrize("name", GRAPHS)
def test_barriers_of_known_graphs(metal: Metal, name: str, allocated: bool) -> None:
    with built(name) as graph:
        barriers = metal.compare(graph, allocated=allocated)
    assert barriers.nodes > 0
    assert_minimal(barriers)


@MEMORY
def test_barriers_of_random_graphs(metal: Metal, allocated: bool) -> None:
    fewer = 0
    for seed in range(N_RANDOM):
        with metal.random_graph(seed, 1 + seed % 60) as graph:
            barriers = metal.compare(graph, allocated=allocated)
        assert_minimal(barriers)
        fewer += barriers.ours < barriers.reorder
    assert fewer > N_RANDOM // 4  # or the graphs have nothing to gain


# Where no two views share a tensor that is written, ggml-metal's tracker sees what we see.
@pytest.mark.parametrize(
    "name",
    ["8 towers of 8 layers", "the seed's Llama layer", "8 layers, attention beside feed-forward"],
)
def test_order_serves_the_tracker_as_well(metal: Metal, name: str) -> None:
    with built(name) as graph:
        barriers = metal.compare(graph)
    assert barriers.tracked == barriers.minimum < barriers.plain


def test_graph_is_as_it_was(metal: Metal) -> None:
    def figures(compare: Callable[[int], Barriers]) -> list[Barriers]:
        return [compare(graph) for _ in range(2)]

    with metal.random_graph(4, 30) as graph:
        before = figures(metal.compare)
        after = figures(lambda g: metal.compare(g, allocated=True))
        assert figures(metal.compare) == before
    assert before[0] == before[1]
    assert after[0] == after[1]


def test_planning_is_no_slower_than_the_reorder(metal: Metal) -> None:
    """Loosely: both are a few microseconds a node, and the machine has other things to do."""
    with metal.layered_graph(100) as graph:
        reorder, plan = metal.time(graph, 20)
    assert plan < 3 * reorder
