"""What the Metal dispatcher predicts, beside ggml-metal's own encoder, operation by operation.

Some operations are several kernels with barriers between them; how many depends on sizes and types.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from metal_compare import Metal, address
from metal_sim import Report, Sim, simulated_or_skipped
from tools import normal_build

import ggml_concurrent as ggc
from ggml_concurrent._native import ffi, lib
from ggml_concurrent.runner import _metal_figures

N_RANDOM = int(os.environ.get("GGC_TEST_ITER", "300"))


@pytest.fixture(scope="module")
def sim() -> Iterator[Sim]:
    with simulated_or_skipped() as opened:
        yield opened


def encoded_as_predicted(sim: Sim, graph: int) -> Report:
    """Of a graph at an address. Raises ggc.Error if ggml-metal cannot compute it."""
    figures = ffi.new("struct ggc_metal_figures *")
    with sim.dry(), sim.metal.started(graph) as run:
        sim.reset()
        sim.metal.compute(run)
        report = sim.report()
        status = lib.ggc_metal_predict(ffi.cast("struct ggml_cgraph *", graph), figures)
        report.check(_metal_figures(status, figures))
    return report


def test_random_graphs(sim: Sim) -> None:
    """No races, and what is predicted; some have a node that ggml-metal cannot compute."""
    compare = Metal(normal_build() / "tests" / "metal_compare.so")
    n_encoded = 0
    for seed in range(N_RANDOM):
        with suppress(ggc.Error), compare.random_graph(seed, 1 + seed % 60) as graph:
            encoded_as_predicted(sim, graph)
            n_encoded += 1
    assert n_encoded > N_RANDOM // 4


class Operation:
    """A graph of one operation, of tensors without contents."""

    def __init__(self, g: ggc.Graph, store: ggc.Store) -> None:
        self.g, self._store = g, store

    def __call__(self, dtype: str, *ne: int) -> ggc.Tensor:
        """A source."""
        return self._store.placeholder(f"t{len(self._store)}", dtype, ne)


def sort(t: Operation, name: str, n: int, rows: int) -> ggc.Tensor:
    x = t("f32", n, rows)
    return t.g.argsort(x, "desc") if name == "argsort" else t.g.cumsum(x)


def top(t: Operation, n: int, rows: int, k: int) -> ggc.Tensor:
    return t.g.top_k(t("f32", n, rows), k)


def change(t: Operation, name: str) -> ggc.Tensor:
    return getattr(t.g, name)(t("f32", 64, 8), t("f32", 16, 4), 256, 2048, 2048, 0)


def count(t: Operation) -> ggc.Tensor:
    return t.g.count_equal(t("i32", 300), t("i32", 300))


def experts(t: Operation, n_in: int, n_tokens: int, dtype: str, precision: str) -> ggc.Tensor:
    x, ids = t("f32", n_in, 1, n_tokens), t("i32", 2, n_tokens)
    product = t.g.mul_mat_id(t(dtype, n_in, 16, 8), x, ids)
    t.g.prec_set_src(product, precision, 1)
    return product


def scan(t: Operation, head: tuple[int, int], n_tokens: int, kept: int, decays: int) -> ggc.Tensor:
    (state, width), n_heads = head, 8
    s, x = t("f32", state, width, n_heads), t("f32", width, n_heads, n_tokens)
    b, c = (t("f32", state, 1, n_tokens) for _ in range(2))
    a, dt = t("f32", decays, n_heads), t("f32", n_heads, n_tokens)
    return t.g.ssm_scan(s, x, dt, a, b, c, t("i32", 1), kept)


def attend(
    t: Operation, head: tuple[int, int], rows: int, n: int, dtype: str, most: int | None
) -> ggc.Tensor:
    """most: rows that a query sees, by its mask; 0: any number; None: there is no mask."""
    q, k, v = t("f32", head[0], n, 4), t(dtype, head[0], rows, 2), t(dtype, head[1], rows, 2)
    mask = None if most is None else t("f16", rows, n)
    mixed = t.g.flash_attn_ext(q, k, v, mask, 0.1, 0.0, 0.0)
    if most:
        t.g.flash_attn_ext_set_n_kv_max(mixed, most)
    return mixed


LENGTHS = (1, 2, 31, 33, 1000, 1023, 1024, 1025, 2047, 2048, 2049, 4096, 4097, 9000, 70000)
HEADS = (
    *((32, 32), (40, 40), (64, 64), (72, 72), (80, 80), (96, 64), (128, 128), (192, 128)),
    *((256, 256), (320, 256), (512, 512), (576, 512)),
)

#: Operation -> what it is tried with.
VARIANTS: dict[Callable[..., ggc.Tensor], list[tuple[Any, ...]]] = {
    sort: list(itertools.product(("argsort", "cumsum"), LENGTHS, (1, 3))),
    top: [
        (n, rows, k)
        for n, rows, k in itertools.product(LENGTHS, (1, 3, 5), (1, 7, 40, 64, 65, 500, 1024, 2000))
        if k <= n
    ],
    change: [("acc",), ("acc_inplace",), ("set",), ("set_inplace",)],
    count: [()],
    experts: list(
        itertools.product(
            (32, 64, 256), (1, 8, 31, 32, 33), ("f32", "f16", "q4_0"), ("default", "f32", "f16")
        )
    ),
    scan: [
        (head, n_tokens, kept, decays)
        for head, n_tokens, kept in itertools.product(
            ((16, 1), (128, 64), (64, 64), (12, 64), (128, 32)),
            (1, 7, 63, 64, 65, 127, 128, 200),
            (1, 2, 64),
        )
        for decays in ((1, head[0]) if kept == 1 else (1,))
    ],
    attend: [
        variant
        for variant in itertools.product(
            HEADS,
            (32, 64, 100, 256),
            (1, 19, 20, 31, 32, 33),
            ("f16", "f32", "q8_0", "q4_0"),
            (None, 0, 64, 5000),
        )
        if variant[0][0] % 32 == 0 or variant[3].startswith("f")
    ],
}

#: Inner barriers that an operation must have been seen with, or the variants prove nothing.
SEEN = {
    sort: {0, 1, 2, 7},
    top: {0, 1},
    change: {0, 1},
    count: {1},
    experts: {0, 1, 2},
    scan: {0, 1},
    attend: {0, 1, 2},
}


@pytest.mark.parametrize("operation", VARIANTS, ids=lambda function: function.__name__)
def test_inner_barriers(sim: Sim, operation: Callable[..., ggc.Tensor]) -> None:
    seen = set()
    for variant in VARIANTS[operation]:
        with ggc.Graph() as g, ggc.Store() as store:
            g.output(operation(Operation(g, store), *variant), "y")
            with suppress(ggc.Error):  # ggml-metal has no kernel for some
                try:
                    seen.add(encoded_as_predicted(sim, address(g)).inner_barriers)
                except AssertionError as error:
                    raise AssertionError(f"{operation.__name__}{variant}") from error
    assert seen >= SEEN[operation]
