"""Pieces that several of llama.cpp's architectures share, with weights under GGUF's names.

Activations are f32 with ne (width, tokens).  The order of operations is llama.cpp's.
"""

from __future__ import annotations

from ..models.layers import linear, named_after, norm, split_heads
from ..tensor import Tensor
from .builder import Builder


def embed(b: Builder, tokens: Tensor, width: int, n_vocab: int) -> Tensor:
    """The tokens' rows of the embedding, ne (width, tokens)."""
    return b.g.expand(b.g.get_rows(b.table("token_embd.weight", width, n_vocab), tokens))


def logits(b: Builder, x: Tensor, eps: float, n_vocab: int) -> None:
    """The last norm and the output `logits`, ne (n_vocab, tokens)."""
    x = norm(b.g, x, b.norm("output_norm.weight", x.ne[0]), eps)
    b.output(b.g.mul_mat(b.matrix("output.weight", x.ne[0], n_vocab), x), "logits")


def project(b: Builder, name: str, x: Tensor, n_out: int, *, bias: bool = False) -> Tensor:
    """x times the matrix `name`.weight, plus `name`.bias where there is one: ne (n_out, ...)."""
    weight = b.matrix(f"{name}.weight", x.ne[0], n_out)
    return linear(b.g, weight, x, b.vector(f"{name}.bias", n_out) if bias else None)


def layer_norm(b: Builder, name: str, x: Tensor, eps: float, *, bias: bool = True) -> Tensor:
    """x with mean 0 and variance 1 over the first dimension, times `name`.weight, plus a bias."""
    weight = b.norm(f"{name}.weight", x.ne[0])
    y = b.g.mul(b.g.norm(x, eps), weight)
    return named_after(b.g.add(y, b.vector(f"{name}.bias", x.ne[0])) if bias else y, weight)


def query_key_value(
    b: Builder, blk: str, x: Tensor, length: int, heads: int, kv_heads: int, *, bias: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Three projections, each ne (length, heads, tokens)."""
    q, k, v = (
        project(b, f"{blk}attn_{name}", x, length * n, bias=bias)
        for name, n in (("q", heads), ("k", kv_heads), ("v", kv_heads))
    )
    return split_heads(b.g, q, length), split_heads(b.g, k, length), split_heads(b.g, v, length)


def gelu_mlp(b: Builder, blk: str, x: Tensor, hidden: int, *, bias: bool = True) -> Tensor:
    """The feed-forward of GPT-2: two matrices with GELU between them."""
    up = project(b, f"{blk}ffn_up", x, hidden, bias=bias)
    return project(b, f"{blk}ffn_down", b.g.gelu(up), x.ne[0], bias=bias)


def swiglu(b: Builder, blk: str, x: Tensor, hidden: int, suffix: str = "") -> Tensor:
    """The gated feed-forward of Llama; `suffix` tells a shared expert's tensors from others."""
    up = project(b, f"{blk}ffn_up{suffix}", x, hidden)
    gate = project(b, f"{blk}ffn_gate{suffix}", x, hidden)
    return project(b, f"{blk}ffn_down{suffix}", b.g.swiglu_split(gate, up), x.ne[0])
