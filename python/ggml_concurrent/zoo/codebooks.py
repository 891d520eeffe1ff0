"""Decoders of audio tokens with several codebooks, as in Parler-TTS and MusicGen.

Each step takes a token from every codebook, adds up their embeddings, and ends in an output matrix
per codebook: products that do not depend on each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..errors import GraphError
from ..models.cache import causal_mask, padded
from ..tensor import Tensor
from .blocks import layer_norm, project
from .builder import Builder
from .workload import Entry

EPS = 1e-5


class _Inputs(NamedTuple):
    """Attention masks, f32: ne (cells, tokens) and ne (encode_length, tokens)."""

    mask: Tensor
    cross_mask: Tensor


def parler(b: Builder, parameters: Mapping[str, int]) -> None:
    """One step of Parler-TTS's decoder: `logits`, ne (vocab_size, tokens, num_codebooks).

    Follows TTS.cpp's graph.  Parameters are the decoder's own and encode_length, the length of the
    description that every layer attends to.  Left out: the prompt (embedded from another table),
    the description's keys and values (computed once; here the caches cross_key and cross_value
    hold them), and the audio codec.  The key/value cache has room for the tokens at hand only;
    flash_attn has no effect.
    """
    p, g, n, n_kv = parameters, b.g, b.n_tokens, b.n_past + b.n_tokens
    if n_kv > p["max_position_embeddings"]:
        limit = p["max_position_embeddings"]
        raise GraphError(f"n_past + n_tokens is {n_kv}, expected at most {limit}")
    inputs = _Inputs(
        b.input("mask", "f32", causal_mask(b.n_past, n, n_kv)),
        b.input("cross_mask", "f32", [[0.0] * p["encode_length"]] * n),
    )
    x = _embed(b, p)
    for layer in range(p["num_hidden_layers"]):
        x = _layer(b, p, layer, x, inputs)
    x = layer_norm(b, "decoder.layer_norm", x, EPS)
    logits = _heads(b, p, x)
    b.output(g.cont_3d(logits, p["vocab_size"], n, p["num_codebooks"]), "logits")


def _embed(b: Builder, p: Mapping[str, int]) -> Tensor:
    """Sum over the codebooks of their tokens' embeddings, plus that of the position."""
    g, n, width = b.g, b.n_tokens, p["hidden_size"]
    last = b.n_past + n
    tokens = b.ids("audio_tokens", n * p["num_codebooks"], p["vocab_size"])
    positions = b.input("positions", "i32", range(b.n_past, last))
    tokens = g.reshape_2d(tokens, n, p["num_codebooks"])
    x = None
    for i in range(p["num_codebooks"]):
        table = b.table(f"decoder.embed_tokens.{i}.weight", width, p["vocab_size"] + 1)
        y = g.get_rows(table, g.view_1d(tokens, n, offset=i * tokens.nb[1]))
        x = y if x is None else g.add(y, x)
    table = b.table("decoder.positional_embed", width, p["max_position_embeddings"], "f32")
    return g.add(x, g.get_rows(table, positions))


def _layer(b: Builder, p: Mapping[str, int], layer: int, x: Tensor, inputs: _Inputs) -> Tensor:
    """Attention to the audio so far, attention to the description, feed-forward."""
    g, name = b.g, f"decoder.layers.{layer}"
    y = layer_norm(b, f"{name}.self_attn_layer_norm", x, EPS)
    x = g.add(_self_attention(b, p, layer, y, inputs.mask), x)
    y = layer_norm(b, f"{name}.encoder_attn_layer_norm", x, EPS)
    x = g.add(_cross_attention(b, p, layer, y, inputs.cross_mask), x)
    y = layer_norm(b, f"{name}.final_layer_norm", x, EPS)
    y = project(b, f"{name}.fc2", g.gelu(project(b, f"{name}.fc1", y, p["ffn_dim"])), x.ne[0])
    return g.add(y, x)


def _self_attention(
    b: Builder, p: Mapping[str, int], layer: int, x: Tensor, mask: Tensor
) -> Tensor:
    """Stores keys and values, attends to all so far: ne (width, tokens)."""
    g, name, (width, n) = b.g, f"decoder.layers.{layer}.self_attn", x.ne[:2]
    heads, n_kv = p["num_attention_heads"], b.n_past + n
    length, cells = width // heads, padded(n_kv)
    q, k, v = (project(b, f"{name}.{part}_proj", x, width) for part in "qkv")
    keys = b.cache(f"cache_k_l{layer}", "f32", (width, cells))
    values = b.cache(f"cache_v_l{layer}", "f32", (cells, width))
    item, token, row = keys.nb[0], keys.nb[1], values.nb[1]
    g.expand(g.cpy(k, g.view_1d(keys, n * width, offset=b.n_past * token)))
    place = g.view_2d(values, n, width, nb1=row, offset=b.n_past * item)
    g.expand(g.cpy(g.cont(g.transpose(v)), place))
    k = g.view_3d(keys, length, n_kv, heads, nb1=token, nb2=item * length, offset=0)
    v = g.view_3d(values, n_kv, length, heads, nb1=row, nb2=row * length, offset=0)
    y = _attend(b, q, g.cont(k), v, mask)
    return project(b, f"{name}.out_proj", y, width)


def _cross_attention(
    b: Builder, p: Mapping[str, int], layer: int, x: Tensor, mask: Tensor
) -> Tensor:
    """Attends to the description: ne (width, tokens)."""
    name, width, heads = f"decoder.layers.{layer}.encoder_attn", x.ne[0], p["num_attention_heads"]
    length, n_kv = width // heads, p["encode_length"]
    k = b.cache(f"cross_key_{layer}", "f32", (length, n_kv, heads))
    v = b.cache(f"cross_value_{layer}", "f32", (n_kv, length, heads))
    y = _attend(b, project(b, f"{name}.q_proj", x, width), k, v, mask)
    return project(b, f"{name}.out_proj", y, width)


def _attend(b: Builder, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention, ne (width, tokens).

    q: ne (width, tokens).  k: ne (length, cells, heads).  v: ne (cells, length, heads).
    """
    g, (width, n), length = b.g, q.ne[:2], k.ne[0]
    q = g.cont(g.permute(g.reshape_3d(q, length, width // length, n), 0, 2, 1, 3))
    weights = g.soft_max_ext(g.mul_mat(k, q), mask, scale=length**-0.5, max_bias=0.0)
    return g.cont_2d(g.permute(g.mul_mat(weights, v), 2, 0, 1, 3), width, n)


def _heads(b: Builder, p: Mapping[str, int], x: Tensor) -> Tensor:
    """Logits of one codebook after the other, ne (vocab_size, tokens * num_codebooks)."""
    y = None
    for i in range(p["num_codebooks"]):
        head = project(b, f"decoder.lm_heads.{i}", x, p["vocab_size"])
        y = head if y is None else b.g.concat(y, head, 1)
    assert y is not None
    return y


def _parameters(
    layers: int, width: int, heads: int, codebooks: int, vocab: int, encode_length: int
) -> dict[str, int]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "ffn_dim": 4 * width,
        "num_codebooks": codebooks,
        "vocab_size": vocab,
        "max_position_embeddings": 4096,
        "encode_length": encode_length,
    }


_MINI = _parameters(24, 1024, 16, 9, 1088, 64)
_SMALL = _parameters(6, 512, 8, 9, 1088, 64)
_TINY = {**_parameters(2, 64, 4, 5, 300, 6), "max_position_embeddings": 32}

ENTRIES = [
    Entry("parler-mini", "Parler-TTS mini decoder, 9 codebooks", parler, _MINI, n_past=255),
    Entry("codebooks-small", "the same, 6 x 512", parler, _SMALL, n_past=255),
    Entry("codebooks-tiny", "for tests", parler, _TINY, "f32", 2, 7),
]
