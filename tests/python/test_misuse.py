"""No misuse of a builder ends the process: it raises one of our exceptions, or builds."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from recipes import CHANGES, RECIPES
from tools import run

import ggml_concurrent as ggc
from ggml_concurrent._ops import SPECS

HERE = Path(__file__).parent
BATCH = 24
BATCHES = [list(SPECS)[i : i + BATCH] for i in range(0, len(SPECS), BATCH)]


def test_every_builder_has_a_recipe() -> None:
    assert set(SPECS) == set(RECIPES) | set(CHANGES)


@pytest.mark.parametrize("ops", BATCHES, ids=lambda ops: f"{ops[0]}..{ops[-1]}")
def test_wrong_arguments(ops: list[str], tmp_path: Path) -> None:
    log = tmp_path / "calls"
    result = run(sys.executable, HERE / "misuse.py", log, "2023", "40", *ops, timeout=250)
    last = log.read_text(encoding="utf-8").splitlines()[-1]
    assert result.returncode == 0, f"{result.stdout[-3000:]}\nthe last call was: {last}"
    built, refused = (int(part.split()[0]) for part in result.stdout.splitlines()[-1].split(","))
    assert built > len(ops)  # the misuse is near enough to what is right
    assert refused > len(ops)


# --- messages of frequent mistakes ---------------------------------------------------------------


def test_message_tells_expected_and_got(graph: ggc.Graph) -> None:
    w, x = graph.input("w", "f16", (64, 8)), graph.input("x", "f32", (32, 3))
    with pytest.raises(ggc.GraphError) as error:
        graph.mul_mat(w, x)
    for part in ("mul_mat(", "f16 (64, 8, 1, 1) 'w'", "f32 (32, 3, 1, 1) 'x'", "is 64", "is 32"):
        assert part in str(error.value)


def test_ggml_assertion_becomes_an_exception(graph: ggc.Graph) -> None:
    x = graph.input("x", "f32", (8, 4))
    with pytest.raises(ggc.GraphError, match=r"concat\(.*dim=7\): ggml\.c:\d+: GGML_ASSERT"):
        graph.concat(x, x, 7)
    assert graph.concat(x, x, 1).ne == (8, 8, 1, 1)  # the graph is as it was


def test_array_instead_of_tensor_names_the_remedy(graph: ggc.Graph) -> None:
    with pytest.raises(TypeError, match=r"expected a Tensor, got ndarray; .*store\.array"):
        graph.silu(np.zeros(3, np.float32))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g, x: g.reshape_2d(g.transpose(x), 4, 8), r"not contiguous.*cont\(\)"),
        (lambda g, x: g.reshape_2d(x, 5, 8), "a has 32 elements"),
        (lambda g, x: g.view_2d(x, 8, 4, x.nb[1], 4), "ends at byte 132, its tensor at 128"),
        (lambda g, x: g.view_1d(x, 8, 2), "multiple of 4"),
        (lambda g, x: g.view_3d(x, 8, 2, 3, x.nb[1], 2 * x.nb[1], 0), "ends at byte 192"),
        (lambda g, x: g.set_1d(x, x, 64), "b would end at byte"),
        (lambda g, x: g.add(x, g.input("y", "f32", 5)), "no multiple of 5"),
        (lambda g, x: g.add(x, g.input("y", "i32", 8)), "b is i32, expected f32"),
        (lambda g, x: g.mul_mat(x, g.input("y", "i32", 8)), "b is i32, expected f32"),
        (lambda g, _: g.rms_norm(g.input("y", "f16", 8), 1e-6), "a is f16, expected f32"),
        (lambda g, x: g.cast(x, "q4_K"), "multiple of 256"),
        (lambda g, x: g.conv_1d(x, x, 0, 0, 1), "s0 is 0, it must be at least 1"),
        (lambda g, x: g.glu(x, "gelu", swapped=False), "expected one of reglu, geglu"),
        (lambda g, x: g.permute(x, 0, 1, 1, 2), "permutation"),
        (lambda g, x: g.top_k(x, 9), "GGML_ASSERT"),
        (lambda g, x: g.norm(x, float("nan")), "eps is nan"),
        (lambda g, x: g.repeat_4d(x, 2**31, 2**31, 1, 1), "larger than any memory|GGML_ASSERT"),
    ],
)
def test_frequent_mistakes(graph: ggc.Graph, call, message: str) -> None:  # noqa: ANN001
    x = graph.input("x", "f32", (8, 4))
    with pytest.raises(ggc.GraphError, match=message):
        call(graph, x)
