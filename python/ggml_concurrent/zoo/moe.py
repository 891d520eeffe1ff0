"""Mixtures of experts: Qwen2-MoE, and the routed feed-forward that other models share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..models.config import Keys, read_config
from ..models.layers import ROPE_NEOX, norm, rope
from ..tensor import Tensor
from .blocks import embed, logits, project, query_key_value, swiglu
from .builder import Builder
from .decoder import Decoder
from .workload import Entry

_SMALLEST_F16 = 6.103515625e-5  # the smallest normal one: no division by zero


def route(
    b: Builder,
    blk: str,
    x: Tensor,
    n_expert: int,
    n_used: int,
    *,
    normalize: bool = False,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Chosen experts, i32 of ne (n_used, tokens), and their weights, ne (1, n_used, tokens).

    normalize: whether the chosen experts' weights are made to sum to 1.
    """
    g, n_tokens = b.g, x.ne[1]
    router = b.vector(f"{blk}ffn_gate_inp.weight", x.ne[0], n_expert, scale=x.ne[0] ** -0.5)
    probabilities = g.soft_max(g.mul_mat(router, x))
    chosen = g.argsort_top_k(probabilities, n_used)
    weights = g.get_rows(g.reshape_3d(probabilities, 1, n_expert, n_tokens), chosen)
    if normalize:
        weights = g.reshape_2d(weights, n_used, n_tokens)
        total = g.clamp(g.sum_rows(weights), _SMALLEST_F16, math.inf)
        weights = g.reshape_3d(g.div(weights, total), 1, n_used, n_tokens)
    if scale != 1.0:
        weights = g.scale(weights, scale)
    g.expand(weights)
    return chosen, weights


def experts(
    b: Builder, blk: str, x: Tensor, chosen: Tensor, weights: Tensor, hidden: int, n_expert: int
) -> Tensor:
    """The weighted sum of the chosen experts' gated feed-forwards: ne (width, tokens)."""
    g, (width, n_tokens) = b.g, x.ne[:2]
    x = g.reshape_3d(x, width, 1, n_tokens)
    up = b.matrix(f"{blk}ffn_up_exps.weight", width, hidden, n_expert)
    gate = b.matrix(f"{blk}ffn_gate_exps.weight", width, hidden, n_expert)
    down = b.matrix(f"{blk}ffn_down_exps.weight", hidden, width, n_expert)
    inner = g.swiglu_split(g.mul_mat_id(gate, x, chosen), g.mul_mat_id(up, x, chosen))
    each = g.expand(g.mul(g.mul_mat_id(down, inner, chosen), weights))
    views = [
        g.expand(g.view_2d(each, width, n_tokens, nb1=each.nb[2], offset=i * each.nb[1]))
        for i in range(each.ne[1])
    ]
    total = views[0]
    for view in views[1:]:
        total = g.expand(g.add(total, view))
    return total


def qwen2moe(b: Builder, metadata: Mapping[str, Any]) -> None:
    """Qwen1.5-MoE and Qwen2-MoE: in each layer a few of many experts, and one that all share."""
    keys, config, g = Keys(metadata), read_config(metadata), b.g
    d = Decoder(b, config, keys.integer("vocab_size"))
    width, eps = config.embedding_length, config.attention_layer_norm_rms_epsilon
    x = embed(b, d.tokens, width, d.n_vocab)
    for i in range(config.block_count):
        blk = f"blk.{i}."
        y = _attention(d, i, norm(g, x, b.norm(f"{blk}attn_norm.weight", width), eps))
        y, x = d.take_last(i, y, x)
        x = g.add(y, x)
        y = norm(g, x, b.norm(f"{blk}ffn_norm.weight", width), eps)
        x = g.add(_feed_forward(b, blk, y, keys), x)
    logits(b, x, eps, d.n_vocab)


def _attention(d: Decoder, layer: int, x: Tensor) -> Tensor:
    b, c, blk = d.b, d.config, f"blk.{layer}."
    heads, kv_heads = c.attention_head_count, c.attention_head_count_kv
    q, k, v = query_key_value(b, blk, x, c.attention_key_length, heads, kv_heads, bias=True)
    base, scale = c.rope_freq_base, c.rope_freq_scale
    q = rope(b.g, q, d.positions, c, ROPE_NEOX, base, scale)
    k = rope(b.g, k, d.positions, c, ROPE_NEOX, base, scale)
    out = d.attend(layer, q, k, v, 1.0 / math.sqrt(c.attention_key_length))
    return project(b, f"{blk}attn_output", out, c.embedding_length)


def _feed_forward(b: Builder, blk: str, x: Tensor, keys: Keys) -> Tensor:
    g, n_expert = b.g, keys.integer("expert_count")
    chosen, weights = route(b, blk, x, n_expert, keys.integer("expert_used_count"))
    hidden = keys.integer("expert_feed_forward_length")
    routed = experts(b, blk, x, chosen, weights, hidden, n_expert)
    width = x.ne[0]
    gate = g.mul_mat(b.vector(f"{blk}ffn_gate_inp_shexp.weight", width, scale=width**-0.5), x)
    gate = g.div(g.silu(gate), gate)  # the sigmoid
    hidden = keys.integer("expert_shared_feed_forward_length")
    shared = swiglu(b, blk, x, hidden, "_shexp")
    return g.add(routed, g.mul(shared, gate))


def _qwen2moe_metadata(
    layers: int, width: int, hidden: int, heads: int, experts: int, used: int, vocab: int
) -> dict[str, Any]:
    keys = {
        "block_count": layers,
        "embedding_length": width,
        "feed_forward_length": hidden * used,
        "attention.head_count": heads,
        "attention.head_count_kv": heads,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 1e6,
        "context_length": 8192,
        "expert_count": experts,
        "expert_used_count": used,
        "expert_feed_forward_length": hidden,
        "expert_shared_feed_forward_length": hidden * used,
        "vocab_size": vocab,
    }
    return {"general.architecture": "qwen2moe", **{f"qwen2moe.{k}": v for k, v in keys.items()}}


ENTRIES = [
    Entry(
        "qwen2moe-a2.7b",
        "Qwen1.5-MoE-A2.7B: 4 of 60 experts, and a shared one",
        qwen2moe,
        _qwen2moe_metadata(24, 2048, 1408, 16, 60, 4, 151936),
        "q4_0",
        n_past=511,
    ),
    Entry(
        "qwen2moe-16l",
        "16 such layers with 6 of 64 experts",
        qwen2moe,
        _qwen2moe_metadata(16, 2048, 1408, 16, 64, 6, 32000),
        "q4_0",
        n_past=511,
    ),
    Entry(
        "qwen2moe-tiny",
        "for tests",
        qwen2moe,
        _qwen2moe_metadata(2, 64, 32, 4, 8, 3, 300),
        "f32",
        2,
        7,
    ),
]
