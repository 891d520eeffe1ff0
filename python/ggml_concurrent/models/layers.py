"""Pieces that transformer layers are made of, in ggml's operations.

Activations are f32 with ne (width, tokens). The order of operations is llama.cpp's, so that the
results are too, down to the rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .cache import KVCache
from .config import Config

if TYPE_CHECKING:
    from ..graph import Graph
    from ..tensor import Tensor

ROPE_NORM = "normal"  # pairs of neighbours are rotated (Llama's files)
ROPE_NEOX = "neox"  # element i and i + n/2 are (Gemma's)


def norm(g: Graph, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMS norm over the first dimension, times a weight per element, and named after that."""
    return named_after(g.mul(g.rms_norm(x, eps=eps), weight), weight)


def named_after(x: Tensor, weight: Tensor) -> Tensor:
    """x with the name blk.0.attn_norm where the weight is blk.0.attn_norm.weight.

    ggml's CUDA backend goes by names: its own streams (GGML_CUDA_GRAPH_OPT) begin behind what is
    called attn_norm, as llama.cpp calls it.
    """
    x.name = weight.name.removesuffix(".weight")
    return x


def linear(g: Graph, weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """weight @ x + bias, for weight of ne (width in, width out)."""
    y = g.mul_mat(weight, x)
    return y if bias is None else g.add(y, bias)


def split_heads(g: Graph, x: Tensor, length: int) -> Tensor:
    """ne (heads * length, tokens) seen as (length, heads, tokens)."""
    return g.reshape_3d(x, length, x.ne[0] // length, x.ne[1])


def rope(
    g: Graph,
    x: Tensor,
    positions: Tensor,
    config: Config,
    mode: str,
    freq_base: float,
    freq_scale: float,
    factors: Tensor | None = None,
) -> Tensor:
    """Rotary position embedding of x, ne (length, heads, tokens)."""
    return g.rope_ext(
        x,
        positions,
        factors,
        n_dims=config.rope_dimension_count,
        mode=mode,
        n_ctx_orig=config.context_length,
        freq_base=freq_base,
        freq_scale=freq_scale,
        ext_factor=0.0,
        attn_factor=1.0,
        beta_fast=32.0,
        beta_slow=1.0,
    )


def attention(
    g: Graph,
    cache: KVCache,
    layer: int,
    qkv: tuple[Tensor, Tensor, Tensor],
    rows: tuple[Tensor, Tensor],
    mask: Tensor,
    scale: float,
) -> Tensor:
    """Store k and v, attend with q over the cache: ne (heads * value length, tokens).

    qkv: each ne (length, heads, tokens). rows: where the cache takes k and v (row_inputs). mask: ne
    (cells, tokens).
    """
    q, k, v = qkv
    for tensor in (q, k, v) if cache.config.windowed else (q, v, k):  # llama.cpp's order
        g.expand(tensor)
    cache.write(g, layer, k, v, *rows)
    n_kv = mask.ne[0]
    values = cache.read_values(g, layer, n_kv)
    keys = cache.read_keys(g, layer, n_kv)
    if cache.flash_attn:
        out = flash_attention(g, q, keys, values, mask, scale)
    else:
        out = plain_attention(g, q, keys, values, mask, scale)
    g.expand(out)
    return out


def plain_attention(
    g: Graph, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float
) -> Tensor:
    """Softmax between two matrix products: ne (heads * value length, tokens).

    q: ne (length, heads, tokens). keys: ne (length, cells, heads). values: ne (cells, value length,
    heads). mask: f32, ne (cells, tokens). The scores stay f32: some models leave the range of f16.
    """
    scores = g.mul_mat(keys, heads_outside(g, q))
    g.prec_set_acc(scores, "f32")
    weights = g.soft_max_ext(scores, mask, scale=scale, max_bias=0.0)
    mixed = g.permute(g.mul_mat(values, weights), 0, 2, 1, 3)
    return g.cont_2d(mixed, mixed.ne[0] * mixed.ne[1], mixed.ne[2])


def flash_attention(
    g: Graph, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float
) -> Tensor:
    """The same in one operation, for values of ne (value length, cells, heads) and an f16 mask."""
    mixed = g.flash_attn_ext(heads_outside(g, q), keys, values, mask, scale, 0.0, 0.0)
    g.prec_set_acc(mixed, "f32")
    return g.reshape_2d(mixed, mixed.ne[0] * mixed.ne[1], mixed.ne[2])


def heads_outside(g: Graph, q: Tensor) -> Tensor:
    """ne (length, heads, tokens) seen as (length, tokens, heads)."""
    q = g.view_4d(q, *q.ne, nb1=q.nb[1], nb2=q.nb[2], nb3=q.nb[2] * q.ne[2], offset=0)
    return g.permute(q, 0, 2, 1, 3)
