"""The zoo's graphs against those that llama.cpp builds for the same tiny models.

tests/python/data/graphs was recorded by scripts/record_graphs.py.
"""

from __future__ import annotations

import difflib
import json
from typing import Any

import numpy as np
import pytest
from graph_cases import CASES, TARGET, build, past_tokens

from ggml_concurrent import zoo
from ggml_concurrent.tensor import write_values


def recorded() -> list[Any]:
    return [
        pytest.param(name, i, id=f"{name}-{n_past}+{n_tokens}")
        for name, case in CASES.items()
        for i, (n_past, n_tokens) in enumerate(case.passes)
    ]


def load(name: str, index: int) -> dict[str, Any]:
    document = json.loads((TARGET / f"{name}.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = document["passes"][index]
    n_past, n_tokens = CASES[name].passes[index]
    assert (found["n_past"], found["n_tokens"]) == (n_past, n_tokens)
    return found


def lines(nodes: list[tuple[str, list[int]]]) -> list[str]:
    """A line for each node that holds something; llama.cpp's others compute nothing.

    It builds such for sequences that a batch does not have. A Graph refuses them.
    """
    return [f"{op} {' x '.join(map(str, ne))}" for op, ne in nodes if 0 not in ne]


@pytest.mark.parametrize(("name", "index"), recorded())
def test_nodes_are_llama_cpps(name: str, index: int) -> None:
    theirs = load(name, index)
    case = CASES[name]
    with build(name, n_past=theirs["n_past"], n_tokens=theirs["n_tokens"]) as workload:
        ours = [(node.op, list(node.ne)) for node in workload.graph.nodes]
    diff = list(difflib.unified_diff(lines(theirs["nodes"]), lines(ours), "llama.cpp", "zoo", n=2))
    changed = {
        line[1:].split()[0] for line in diff if line[:1] in "+-" and line[:3] not in ("+++", "---")
    }
    assert changed <= set(case.differences), "\n".join(diff[:80])
    assert changed == set(case.differences), "a listed difference does not occur any more"


def caches_after(name: str, n_past: int) -> dict[str, np.ndarray]:
    """What the caches hold after the tokens that the recorder evaluates first."""
    if n_past == 0:
        return {}
    with build(name, n_past=0, n_tokens=n_past, zero_caches=True) as workload:
        workload.feeds["tokens"] = np.array(past_tokens(n_past), np.int32)
        with workload.runner(streams=2, always=True) as runner:
            workload.run(runner)
            return workload.caches()


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal up to the rounding of other instructions, which f16 caches make larger."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3 * np.abs(theirs).max())


@pytest.mark.parametrize(("name", "index"), recorded())
def test_logits_are_llama_cpps(name: str, index: int) -> None:
    theirs = load(name, index)
    n_past, n_tokens = theirs["n_past"], theirs["n_tokens"]
    caches = caches_after(name, n_past)
    with build(name, n_past=n_past, n_tokens=n_tokens, zero_caches=True) as workload:
        for cache, values in caches.items():
            write_values(workload.store[cache]._struct, values)
        with workload.runner(streams=2, always=True) as runner:
            output = next(iter(workload.run(runner).values())).reshape(-1)
    expected = np.array(theirs["logits"], np.float32)
    assert_close(output[: expected.size], expected)


#
# GPT-J, which llama.cpp does not build, against its definition
#


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * weight + bias


def rotated_pairs(x: np.ndarray, n_rotated: int) -> np.ndarray:
    """Neighbours among the first n_rotated elements of a head turned by their position."""
    angles = np.arange(len(x))[:, None] / 1e4 ** (np.arange(0, n_rotated, 2) / n_rotated)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    even, odd = x[..., 0:n_rotated:2], x[..., 1:n_rotated:2]
    y = x.copy()
    y[..., 0:n_rotated:2], y[..., 1:n_rotated:2] = even * cos - odd * sin, odd * cos + even * sin
    return y


def gelu_new(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gptj_logits(w: dict[str, np.ndarray], keys: dict[str, Any], tokens: np.ndarray) -> np.ndarray:
    heads, n_rotated = keys["gptj.attention.head_count"], keys["gptj.rope.dimension_count"]
    x, n = w["token_embd.weight"][tokens], len(tokens)
    future = np.triu(np.full((n, n), -np.inf), 1)
    for blk in (f"blk.{i}." for i in range(keys["gptj.block_count"])):
        y = layer_norm(x, w[blk + "attn_norm.weight"], w[blk + "attn_norm.bias"])
        q, k, v = ((y @ w[f"{blk}attn_{c}.weight"].T).reshape(n, heads, -1) for c in "qkv")
        q, k = rotated_pairs(q, n_rotated), rotated_pairs(k, n_rotated)
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(q.shape[-1]) + future
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        attended = np.einsum("hij,jhd->ihd", weights, v).reshape(n, -1)
        hidden = gelu_new(y @ w[blk + "ffn_up.weight"].T + w[blk + "ffn_up.bias"])
        fed = hidden @ w[blk + "ffn_down.weight"].T + w[blk + "ffn_down.bias"]
        x = x + attended @ w[blk + "attn_output.weight"].T + fed
    x = layer_norm(x[-1], w["output_norm.weight"], w["output_norm.bias"])
    return x @ w["output.weight"].T + w["output.bias"]


@pytest.mark.parametrize("flash_attn", [False, True])
def test_gptj_is_its_definition(flash_attn: bool) -> None:
    options = {"n_tokens": 6, "n_past": 0, "flash_attn": flash_attn}
    with zoo.build("gptj-tiny", **options) as workload, workload.runner() as runner:
        ours = workload.run(runner)["logits"].reshape(-1)
        w = {name: np.squeeze(t.numpy()) for name, t in workload.store.tensors.items()}
        theirs = gptj_logits(w, dict(workload.entry.parameters), workload.feeds["tokens"])
    assert_close(ours, theirs)
