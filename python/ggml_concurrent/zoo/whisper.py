"""Whisper: one step of the decoder, and the keys and values of its attention to the audio.

The order of operations is whisper.cpp's, with its names of tensors, hyperparameters and inputs.
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


class _Cache(NamedTuple):
    """Keys and values of all layers: whisper.cpp keeps each of them in one tensor.

    Both are f16 of ne (width, layers * n_ctx).  With flash attention both lie token by token;
    without it the values of a layer lie element by element, n_ctx tokens in a row.  n_kv: how many
    cells of a layer the attention reads.
    """

    k: Tensor
    v: Tensor
    n_ctx: int
    n_kv: int


class _Shape(NamedTuple):
    """Sizes that every layer shares."""

    width: int
    heads: int
    length: int
    key_scale: float


class _Inputs(NamedTuple):
    """What the decoder's layers read besides the activations."""

    mask: Tensor
    self_kv: _Cache
    cross_kv: _Cache


def decoder(b: Builder, parameters: Mapping[str, int]) -> None:
    """One step of the decoder: logits of n_tokens tokens after n_past others, of all of them.

    Follows whisper.cpp's decoder graph; left out: token timestamps (the extraction of alignment
    heads), and the search of free cells, as n_tokens go to the cells after the first n_past.
    """
    p = parameters
    n, n_kv = b.n_tokens, b.n_past + b.n_tokens
    if n_kv > p["n_text_ctx"]:
        raise GraphError(f"n_past + n_tokens is {n_kv}, Whisper has n_text_ctx = {p['n_text_ctx']}")
    s = _shape(p)
    table = b.table("decoder.token_embedding.weight", s.width, p["n_vocab"])
    positions = b.table("decoder.positional_embedding", s.width, p["n_text_ctx"], "f32")
    tokens = b.ids("embd", n, p["n_vocab"])
    where = b.input("position", "i32", range(b.n_past, n_kv))
    mask = b.input("KQ_mask", "f32", causal_mask(b.n_past, n, n_kv))
    inputs = _Inputs(
        b.g.cast(mask, "f16") if b.flash_attn else mask,
        _cache(b, "kv_self", p, padded(p["n_text_ctx"]), n_kv),
        _audio_cache(b, p, p["n_audio_ctx"]),
    )
    x = b.g.add(b.g.get_rows(table, tokens), b.g.get_rows(positions, where))
    for layer in range(p["n_text_layer"]):
        x = _layer(b, s, layer, x, inputs)
    x = layer_norm(b, "decoder.ln", x, EPS)
    b.output(b.g.mul_mat(table, x), "logits")


def cross(b: Builder, parameters: Mapping[str, int]) -> None:
    """Keys and values of every decoder layer for n_tokens frames that the encoder gave.

    Follows whisper.cpp's graph between encoder and decoder.  No product depends on another: the
    graph is as wide as it is long.  The results are the caches kv_cross.k and kv_cross.v.
    """
    p, g = parameters, b.g
    n = b.n_tokens
    if b.n_past or n > p["n_audio_ctx"]:
        raise GraphError(
            f"n_tokens are the encoder's frames, at most n_audio_ctx = {p['n_audio_ctx']}, and "
            f"none are in a cache before them; got n_tokens {n}, n_past {b.n_past}"
        )
    s = _shape(p)
    cache = _audio_cache(b, p, n)
    frames = b.activations("embd_enc", s.width, n)
    for layer in range(p["n_text_layer"]):
        name = f"decoder.blocks.{layer}.cross_attn"
        k = g.scale(project(b, f"{name}.key", frames, s.width), s.key_scale)
        v = project(b, f"{name}.value", frames, s.width, bias=True)
        _write(b, cache, layer, k, v, first=0)


def _shape(p: Mapping[str, int]) -> _Shape:
    length = p["n_text_state"] // p["n_text_head"]
    return _Shape(p["n_text_state"], p["n_text_head"], length, length**-0.25)


def _layer(b: Builder, s: _Shape, layer: int, x: Tensor, inputs: _Inputs) -> Tensor:
    """Attention to the text, attention to the audio, feed-forward; each after a norm."""
    g, name = b.g, f"decoder.blocks.{layer}"
    y = _self_attention(b, s, layer, layer_norm(b, f"{name}.attn_ln", x, EPS), inputs)
    x = g.add(project(b, f"{name}.attn.out", y, s.width, bias=True), x)
    y = _cross_attention(b, s, layer, layer_norm(b, f"{name}.cross_attn_ln", x, EPS), inputs)
    x = g.add(project(b, f"{name}.cross_attn.out", y, s.width, bias=True), x)
    y = layer_norm(b, f"{name}.mlp_ln", x, EPS)
    y = g.gelu(project(b, f"{name}.mlp.0", y, 4 * s.width, bias=True))
    return g.add(project(b, f"{name}.mlp.2", y, s.width, bias=True), x)


def _self_attention(b: Builder, s: _Shape, layer: int, x: Tensor, inputs: _Inputs) -> Tensor:
    """Stores keys and values, attends to all so far: ne (width, tokens).

    Both queries and keys carry the root of the usual scale.
    """
    g, name = b.g, f"decoder.blocks.{layer}.attn"
    q = g.scale(project(b, f"{name}.query", x, s.width, bias=True), s.key_scale)
    k = g.scale(project(b, f"{name}.key", x, s.width), s.key_scale)
    v = project(b, f"{name}.value", x, s.width, bias=True)
    _write(b, inputs.self_kv, layer, k, v, first=b.n_past)
    return _attend(b, s, layer, q, inputs.self_kv, inputs.mask, 1.0)


def _cross_attention(b: Builder, s: _Shape, layer: int, x: Tensor, inputs: _Inputs) -> Tensor:
    """Attends to the frames of the audio: ne (width, tokens)."""
    q = project(b, f"decoder.blocks.{layer}.cross_attn.query", x, s.width, bias=True)
    return _attend(b, s, layer, q, inputs.cross_kv, None, s.key_scale)


def _attend(
    b: Builder,
    s: _Shape,
    layer: int,
    q: Tensor,
    cache: _Cache,
    mask: Tensor | None,
    scale: float,
) -> Tensor:
    """Attention of q, ne (width, tokens), to a layer's cells: ne (width, tokens)."""
    g, n, n_kv = b.g, q.ne[1], cache.n_kv
    q = g.permute(g.reshape_3d(q, s.length, s.heads, n), 0, 2, 1, 3)
    k = _read(b, s, cache, cache.k, layer)
    if b.flash_attn:
        v = _read(b, s, cache, cache.v, layer)
        return g.reshape_2d(g.flash_attn_ext(q, k, v, mask, scale, 0.0, 0.0), s.width, n)
    weights = g.soft_max_ext(g.mul_mat(k, q), mask, scale=scale, max_bias=0.0)
    row = cache.n_ctx * cache.v.nb[0]
    offset = layer * s.width * row
    v = g.view_3d(cache.v, n_kv, s.length, s.heads, nb1=row, nb2=row * s.length, offset=offset)
    return g.cont_2d(g.permute(g.mul_mat(v, weights), 0, 2, 1, 3), s.width, n)


#
# Caches
#


def _cache(b: Builder, name: str, p: Mapping[str, int], n_ctx: int, n_kv: int) -> _Cache:
    ne = (p["n_text_state"], p["n_text_layer"] * n_ctx)
    return _Cache(b.cache(f"{name}.k", "f16", ne), b.cache(f"{name}.v", "f16", ne), n_ctx, n_kv)


def _audio_cache(b: Builder, p: Mapping[str, int], n_audio: int) -> _Cache:
    """For n_audio frames; flash attention reads some padding after them as well."""
    n_ctx = padded(n_audio) if b.flash_attn else n_audio
    return _cache(b, "kv_cross", p, n_ctx, n_ctx)


def _read(b: Builder, s: _Shape, cache: _Cache, part: Tensor, layer: int) -> Tensor:
    """A layer's tokens in a part that lies token by token, ne (length, n_kv, heads)."""
    token, head = part.nb[1], part.nb[0] * s.length
    offset = layer * cache.n_ctx * token
    return b.g.view_3d(part, s.length, cache.n_kv, s.heads, nb1=token, nb2=head, offset=offset)


def _write(b: Builder, cache: _Cache, layer: int, k: Tensor, v: Tensor, first: int) -> None:
    """Stores k and v, ne (width, tokens), in a layer's cells from `first` on."""
    g, (width, n) = b.g, k.ne[:2]
    token, item = cache.k.nb[1], cache.v.nb[0]
    offset = token * (layer * cache.n_ctx + first)
    k_cells = g.view_1d(cache.k, n * width, offset)
    if b.flash_attn:
        v_cells = g.view_1d(cache.v, n * width, offset)
    else:
        v = g.transpose(g.reshape_2d(v, width, n))
        start = token * layer * cache.n_ctx + first * item
        v_cells = g.view_2d(cache.v, n, width, nb1=cache.n_ctx * item, offset=start)
    g.expand(g.cpy(k, k_cells))
    g.expand(g.cpy(v, v_cells))


def _hparams(layers: int, width: int, heads: int, audio: int = 1500) -> dict[str, int]:
    return {
        "n_audio_ctx": audio,
        "n_text_state": width,
        "n_text_head": heads,
        "n_text_layer": layers,
    }


def _text(vocab: int, length: int = 448) -> dict[str, int]:
    return {"n_vocab": vocab, "n_text_ctx": length}


_BASE = _hparams(6, 512, 8)
_LARGE = _hparams(32, 1280, 20)
_TINY = _hparams(2, 64, 4, 30)
_BASE_DECODER, _LARGE_DECODER = {**_BASE, **_text(51865)}, {**_LARGE, **_text(51866)}
_CROSS = "cross-attention keys and values of"

ENTRIES = [
    Entry("whisper-base", "Whisper base decoder, 6 x 512", decoder, _BASE_DECODER, n_past=63),
    Entry(
        "whisper-large-v3",
        "Whisper large v3 decoder, 32 x 1280",
        decoder,
        _LARGE_DECODER,
        n_past=63,
    ),
    Entry("whisper-base-cross", f"{_CROSS} Whisper base", cross, _BASE, n_tokens=1500),
    Entry("whisper-large-v3-cross", f"{_CROSS} Whisper large v3", cross, _LARGE, n_tokens=1500),
    Entry("whisper-tiny", "for tests", decoder, {**_TINY, **_text(300, 32)}, "f32", 2, 7),
    Entry("whisper-cross-tiny", "for tests", cross, _TINY, "f32", 30),
]
