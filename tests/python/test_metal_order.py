"""What the Metal dispatcher predicts, beside ggml-metal's own fusion table and range tracker.

The barriers inside of operations that are several kernels are the predictor's own here; those are
compared by test_metal_sim.py.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from metal_compare import GRAPHS, Metal, MetalError, address, built
from tools import need_built

from ggml_concurrent import zoo

N_RANDOM = int(os.environ.get("GGC_TEST_ITER", "300"))
TINY = sorted(name for name in zoo.GRAPHS if name.endswith("-tiny"))
SHARED, APART = 0, 1 << 40  # bytes up to which tensors have memory of their own


class Prediction(ctypes.Structure):
    """tests/metal/order.h says what these are."""

    _fields_ = [
        (name, ctypes.c_uint32)
        for name in (
            "kernels",
            "barriers",
            "command_buffers",
            "predicted_kernels",
            "predicted_barriers",
            "predicted_command_buffers",
            "inner_barriers",
            "phases",
            "cuts_phase",
            "nodes",
        )
    ]

    def assert_right(self) -> None:
        found = (self.kernels, self.barriers, self.command_buffers)
        predicted = (
            self.predicted_kernels,
            self.predicted_barriers,
            self.predicted_command_buffers,
        )
        assert predicted == found


class Orders:
    """The functions of tests/metal/order.h."""

    def __init__(self, path: Path) -> None:
        self.metal = Metal(path)
        self._lib = ctypes.CDLL(str(path.resolve()))
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        for name, arguments in (
            ("metal_predict_plain", (pointer, pointer)),
            ("metal_predict_ours", (pointer, size, ctypes.c_uint32, pointer)),
            ("metal_prove_wrong", (pointer,)),
        ):
            function = getattr(self._lib, name)
            function.restype, function.argtypes = ctypes.c_char_p, arguments

    def plain(self, graph: int) -> Prediction:
        prediction = Prediction()
        self._check(self._lib.metal_predict_plain(graph, ctypes.byref(prediction)))
        return prediction

    def ours(self, graph: int, budget: int, seed: int = 0) -> Prediction:
        prediction = Prediction()
        message = self._lib.metal_predict_ours(graph, budget, seed, ctypes.byref(prediction))
        self._check(message)
        return prediction

    def prove_wrong(self, graph: int) -> None:
        self._check(self._lib.metal_prove_wrong(graph))

    @staticmethod
    def _check(message: bytes | None) -> None:
        if message is not None:
            raise MetalError(message.decode())


@pytest.fixture(scope="module")
def orders() -> Orders:
    return Orders(need_built("tests", "metal_compare.so"))


@contextmanager
def graph_of(name: str) -> Iterator[int]:
    if name in GRAPHS:
        with built(name) as graph:
            yield graph
    else:
        with zoo.build(name) as workload:
            yield address(workload.graph)


@pytest.mark.parametrize("name", [*GRAPHS, *TINY])
def test_prediction_of_known_graphs(orders: Orders, name: str) -> None:
    with graph_of(name) as graph:
        orders.plain(graph).assert_right()
        for budget in (SHARED, APART):
            orders.ours(graph, budget).assert_right()


@pytest.mark.parametrize("name", [*GRAPHS, *TINY])
@pytest.mark.parametrize("budget", [SHARED, APART], ids=["shared", "apart"])
def test_no_more_barriers_than_phases(orders: Orders, name: str, budget: int) -> None:
    """Nor more than in the plain order; where buffers are cut, that is one of them."""
    with graph_of(name) as graph:
        ours, plain = orders.ours(graph, budget), orders.plain(graph)
    assert not ours.cuts_phase
    assert ours.barriers + ours.command_buffers <= ours.phases
    assert ours.barriers <= plain.barriers
    assert ours.command_buffers <= plain.command_buffers
    assert ours.kernels <= plain.kernels  # ggml's allocator may make fusions impossible


def test_prediction_of_random_graphs(orders: Orders) -> None:
    fewer = 0
    for seed in range(N_RANDOM):
        with orders.metal.random_graph(seed, 1 + seed % 60) as graph:
            plain = orders.plain(graph)
            plain.assert_right()
            for budget in (SHARED, APART):
                for shuffle in (0, seed + 1):
                    ours = orders.ours(graph, budget, shuffle)
                    ours.assert_right()
                    assert ours.barriers <= ours.phases + ours.cuts_phase
            fewer += ours.barriers < plain.barriers
    assert fewer > N_RANDOM // 2


def test_large_graphs_are_cut_between_phases(orders: Orders) -> None:
    """Where the first command buffer takes a tenth of the nodes, not 64."""
    for n_layers in (10, 30, 100):
        with orders.metal.layered_graph(n_layers) as graph:
            ours = orders.ours(graph, APART)
            ours.assert_right()
        assert ours.command_buffers == 2
        assert not ours.cuts_phase
        assert ours.barriers + 2 <= ours.phases


@pytest.mark.parametrize("name", [*GRAPHS, *TINY])
def test_proof_refutes_missing_barriers(orders: Orders, name: str) -> None:
    with graph_of(name) as graph:
        orders.prove_wrong(graph)
