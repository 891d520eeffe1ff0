"""Models whose attention and feed-forward stand beside each other: both read the same norm.

x + attention(norm(x)) + feed_forward(norm(x)), so that a layer is two chains that only meet at its
end: Falcon, GPT-J, Phi-2, Command R and Command R7B (Cohere 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..models.config import Config, Keys, read_config
from ..models.layers import ROPE_NEOX, ROPE_NORM, rope
from ..tensor import Tensor
from .blocks import embed, gelu_mlp, layer_norm, project, query_key_value, swiglu
from .builder import Builder
from .decoder import Decoder
from .workload import Entry


def falcon(b: Builder, metadata: Mapping[str, Any]) -> None:
    """Falcon 7B: one matrix makes queries, keys and values; all heads share one key and value."""
    d, x = _start(b, metadata, read_config(metadata, rms=False))
    eps, hidden = d.config.attention_layer_norm_epsilon, d.config.feed_forward_length
    for i in range(d.config.block_count):
        blk = f"blk.{i}."
        y = layer_norm(b, f"{blk}attn_norm", x, eps)
        attended = _falcon_attention(d, i, y)
        attended, x, y = d.take_last(i, attended, x, y)
        x = b.g.add(b.g.add(gelu_mlp(b, blk, y, hidden, bias=False), attended), x)
    x = layer_norm(b, "output_norm", x, eps)
    b.output(project(b, "output", x, d.n_vocab), "logits")


def _falcon_attention(d: Decoder, layer: int, x: Tensor) -> Tensor:
    b, c, blk = d.b, d.config, f"blk.{layer}."
    length, heads, kv_heads = (
        c.attention_key_length,
        c.attention_head_count,
        c.attention_head_count_kv,
    )
    qkv = project(b, f"{blk}attn_qkv", x, length * (heads + 2 * kv_heads))
    starts = (heads, 0), (kv_heads, heads), (kv_heads, heads + kv_heads)
    q, k, v = (_heads_of(b, qkv, length, n, first) for n, first in starts)
    q, k = (_rotate(d, part, ROPE_NEOX) for part in (q, k))
    out = d.attend(layer, q, k, v, 1.0 / math.sqrt(length))
    return project(b, f"{blk}attn_output", out, c.embedding_length)


def _heads_of(b: Builder, qkv: Tensor, length: int, heads: int, first: int) -> Tensor:
    """Heads `first`, first + 1, ... of each token, ne (length, heads, tokens)."""
    nb1, nb2 = qkv.nb[0] * length, qkv.nb[1]
    return b.g.view_3d(qkv, length, heads, qkv.ne[1], nb1=nb1, nb2=nb2, offset=first * nb1)


def gptj(b: Builder, metadata: Mapping[str, Any]) -> None:
    """GPT-J: rotates the first quarter of each head; biases in the feed-forward and the output.

    llama.cpp knows the name but has no builder for it: this is the model's own definition in the
    order in which llama.cpp builds Falcon.
    """
    d, x = _start(b, metadata, read_config(metadata, rms=False))
    eps, hidden = d.config.attention_layer_norm_epsilon, d.config.feed_forward_length
    for i in range(d.config.block_count):
        blk = f"blk.{i}."
        y = layer_norm(b, f"{blk}attn_norm", x, eps)
        attended = _attention(d, i, y, mode=ROPE_NORM)
        attended, x, y = d.take_last(i, attended, x, y)
        x = b.g.add(b.g.add(gelu_mlp(b, blk, y, hidden), attended), x)
    x = layer_norm(b, "output_norm", x, eps)
    b.output(project(b, "output", x, d.n_vocab, bias=True), "logits")


def phi2(b: Builder, metadata: Mapping[str, Any]) -> None:
    """Phi-2: biases everywhere; queries are scaled before they meet the keys."""
    d, x = _start(b, metadata, read_config(metadata, rms=False))
    eps, hidden = d.config.attention_layer_norm_epsilon, d.config.feed_forward_length
    for i in range(d.config.block_count):
        blk = f"blk.{i}."
        y = layer_norm(b, f"{blk}attn_norm", x, eps)
        attended = _attention(d, i, y, mode=ROPE_NEOX, bias=True, scale_queries=True)
        attended, x, y = d.take_last(i, attended, x, y)
        x = b.g.add(b.g.add(attended, gelu_mlp(b, blk, y, hidden)), x)
    x = layer_norm(b, "output_norm", x, eps)
    b.output(project(b, "output", x, d.n_vocab, bias=True), "logits")


def cohere(b: Builder, metadata: Mapping[str, Any]) -> None:
    """Command R and Cohere 2: no biases, gated feed-forward, the embedding is the output too.

    In Cohere 2 three layers of four look back over a window, and only they know positions.
    """
    config = _cohere_config(metadata)
    d, x = _start(b, metadata, config)
    eps, hidden = config.attention_layer_norm_epsilon, config.feed_forward_length
    for i in range(config.block_count):
        blk = f"blk.{i}."
        y = layer_norm(b, f"{blk}attn_norm", x, eps, bias=False)
        rotated = config.is_windowed(i) or not config.windowed
        attended = _attention(d, i, y, mode=ROPE_NORM if rotated else None)
        attended, x, y = d.take_last(i, attended, x, y)
        x = b.g.add(b.g.add(swiglu(b, blk, y, hidden), x), attended)
    x = layer_norm(b, "output_norm", x, eps, bias=False)
    output = b.table_copy("token_embd.weight (output)", b.store.tensors["token_embd.weight"])
    logit_scale = Keys(metadata).real("logit_scale")
    b.output(b.g.scale(b.g.mul_mat(output, x), logit_scale), "logits")


def _cohere_config(metadata: Mapping[str, Any]) -> Config:
    config = read_config(metadata, rms=False)
    window = Keys(metadata).integer("attention.sliding_window", 0)
    windowed = tuple(i % 4 < 3 for i in range(config.block_count)) if window else ()
    return replace(config, attention_sliding_window=window, windowed=windowed)


def _start(b: Builder, metadata: Mapping[str, Any], config: Config) -> tuple[Decoder, Tensor]:
    """Inputs and cache, and the tokens' embeddings."""
    d = Decoder(b, config, Keys(metadata).integer("vocab_size"))
    return d, embed(b, d.tokens, config.embedding_length, d.n_vocab)


def _attention(
    d: Decoder,
    layer: int,
    x: Tensor,
    *,
    mode: str | None,
    bias: bool = False,
    scale_queries: bool = False,
) -> Tensor:
    """Attention with a matrix each for queries, keys and values. mode: of the rotation, if any."""
    b, c, blk = d.b, d.config, f"blk.{layer}."
    length, heads = c.attention_key_length, c.attention_head_count
    q, k, v = query_key_value(b, blk, x, length, heads, c.attention_head_count_kv, bias=bias)
    if mode is not None:
        q, k = (_rotate(d, part, mode) for part in (q, k))
    scale = 1.0 / math.sqrt(length)
    if scale_queries:
        q, scale = b.g.scale(q, scale), 1.0
    out = d.attend(layer, q, k, v, scale)
    return project(b, f"{blk}attn_output", out, c.embedding_length, bias=bias)


def _rotate(d: Decoder, x: Tensor, mode: str) -> Tensor:
    c = d.config
    return rope(d.b.g, x, d.positions, c, mode, c.rope_freq_base, c.rope_freq_scale)


def _metadata(
    name: str,
    layers: int,
    width: int,
    hidden: int,
    heads: tuple[int, int],
    vocab: int,
    more: Mapping[str, float],
) -> dict[str, Any]:
    """GGUF metadata. heads: of queries, and of keys and values."""
    keys = {
        "block_count": layers,
        "embedding_length": width,
        "feed_forward_length": hidden,
        "attention.head_count": heads[0],
        "attention.head_count_kv": heads[1],
        "attention.layer_norm_epsilon": 1e-5,
        "rope.dimension_count": width // heads[0],
        "vocab_size": vocab,
        **more,
    }
    return {"general.architecture": name, **{f"{name}.{k}": v for k, v in keys.items()}}


def _full(name: str, about: str, function: Callable[..., None], *metadata: Any) -> Entry:
    return Entry(name, about, function, _metadata(*metadata), "q4_0", n_past=511)


def _tiny(function: Callable[..., None], name: str, layers: int, kv_heads: int, more: Any) -> Entry:
    metadata = _metadata(name, layers, 64, 96, (4, kv_heads), 300, more)
    return Entry(f"{name}-tiny", "for tests", function, metadata, "f32", 2, 7)


_FALCON = {"context_length": 2048}
_GPTJ = {"context_length": 2048, "rope.dimension_count": 64}
_PHI2 = {"context_length": 2048, "rope.dimension_count": 32}
_COMMAND_R = {"context_length": 8192, "rope.freq_base": 8e6, "logit_scale": 0.0625}
_COHERE2 = {
    "context_length": 8192,
    "rope.freq_base": 5e4,
    "logit_scale": 0.25,
    "attention.sliding_window": 4096,
}
_ROTATED_8 = {"rope.dimension_count": 8}
_WINDOW_4 = {"attention.sliding_window": 4}

ENTRIES = [
    _full("falcon-7b", "Falcon 7B", falcon, "falcon", 32, 4544, 18176, (71, 1), 65024, _FALCON),
    _full("gptj-6b", "GPT-J 6B", gptj, "gptj", 28, 4096, 16384, (16, 16), 50400, _GPTJ),
    _full("gptj-1b", "GPT-J's layers", gptj, "gptj", 16, 2048, 8192, (16, 16), 50400, _GPTJ),
    _full("phi2-2.7b", "Phi-2", phi2, "phi2", 32, 2560, 10240, (32, 32), 51200, _PHI2),
    _full(
        "command-r-35b",
        "Command R",
        cohere,
        "command-r",
        40,
        8192,
        22528,
        (64, 64),
        256000,
        _COMMAND_R,
    ),
    _full(
        "cohere2-7b", "Command R7B", cohere, "cohere2", 32, 4096, 14336, (32, 8), 256000, _COHERE2
    ),
    _tiny(falcon, "falcon", 3, 1, _FALCON),
    _tiny(gptj, "gptj", 3, 4, _GPTJ | _ROTATED_8),
    _tiny(phi2, "phi2", 3, 4, _PHI2 | _ROTATED_8),
    _tiny(cohere, "command-r", 3, 4, _COMMAND_R),
    _tiny(cohere, "cohere2", 5, 2, _COHERE2 | _WINDOW_4),
]
