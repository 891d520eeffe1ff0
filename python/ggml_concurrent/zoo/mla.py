"""Multi-head latent attention: DeepSeek-V2-Lite.

Keys and values of all heads are products of one short latent vector for each token, the only thing
that the cache keeps.  The matrices that make keys and values of it are absorbed: the first is
applied to the queries, the second to what the attention mixed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..models.cache import causal_mask, padded
from ..models.config import Keys
from ..models.layers import heads_outside, norm
from ..tensor import Tensor
from .blocks import embed, logits, project, swiglu
from .builder import Builder
from .moe import experts, route
from .workload import Entry


def deepseek2(b: Builder, metadata: Mapping[str, Any]) -> None:
    """DeepSeek-V2-Lite: latent attention, experts in all layers but the first ones."""
    keys, g = Keys(metadata), b.g
    width, n_vocab = keys.integer("embedding_length"), keys.integer("vocab_size")
    eps, dense = (
        keys.real("attention.layer_norm_rms_epsilon"),
        keys.integer("leading_dense_block_count"),
    )
    n_layer = keys.integer("block_count")
    tokens = b.ids("tokens", b.n_tokens, n_vocab)
    last = b.input("last", "i32", [b.n_tokens - 1])
    attention = LatentAttention(b, keys)
    x = embed(b, tokens, width, n_vocab)
    for i in range(n_layer):
        blk = f"blk.{i}."
        y = attention.layer(i, norm(g, x, b.norm(f"{blk}attn_norm.weight", width), eps))
        if i == n_layer - 1:
            y, x = g.get_rows(y, last), g.get_rows(x, last)
        x = g.add(y, x)
        y = norm(g, x, b.norm(f"{blk}ffn_norm.weight", width), eps)
        if i < dense:
            y = swiglu(b, blk, y, keys.integer("feed_forward_length"))
        else:
            y = _experts(b, blk, y, keys)
        x = g.add(y, x)
    logits(b, x, eps, n_vocab)


def _experts(b: Builder, blk: str, x: Tensor, keys: Keys) -> Tensor:
    """A few of many experts, and those that all tokens share, as one."""
    n_expert, hidden = keys.integer("expert_count"), keys.integer("expert_feed_forward_length")
    scale = keys.real("expert_weights_scale")
    chosen, weights = route(b, blk, x, n_expert, keys.integer("expert_used_count"), scale=scale)
    routed = experts(b, blk, x, chosen, weights, hidden, n_expert)
    shared = swiglu(b, blk, x, hidden * keys.integer("expert_shared_count"), "_shexp")
    return b.g.add(routed, shared)


class LatentAttention:
    """Attention of all layers, its inputs and its cache of latent vectors."""

    def __init__(self, b: Builder, keys: Keys) -> None:
        self.b, self.keys = b, keys
        self.heads = keys.integer("attention.head_count")
        self.rank = keys.integer("attention.kv_lora_rank")
        self.rotated = keys.integer("rope.dimension_count")
        self.key_length = keys.integer("attention.key_length_mla")
        self.value_length = keys.integer("attention.value_length_mla")
        self.eps = keys.real("attention.layer_norm_rms_epsilon")
        self.cells = padded(b.n_past + b.n_tokens)
        cells = np.arange(b.n_past, b.n_past + b.n_tokens)
        self.positions = b.input("positions", "i32", cells)
        self.rows = b.input("key_rows", "i64", cells)
        mask = causal_mask(b.n_past, b.n_tokens, self.cells)
        self.mask = b.input("mask", "f16" if b.flash_attn else "f32", mask)
        self._set_rope()

    def _set_rope(self) -> None:
        """YaRN with equal mscale and mscale_all_dim, which scales the scores, not the vectors."""
        keys, factor = self.keys, self.keys.real("rope.scaling.factor")
        plain = 1.0 + 0.1 * math.log(factor)
        mscale = 1.0 + keys.real("rope.scaling.yarn_log_multiplier") * math.log(factor)
        self.scale = mscale**2 / math.sqrt(self.key_length)
        self.rope = {
            "n_dims": self.rotated,
            "mode": "normal",
            "n_ctx_orig": keys.integer("rope.scaling.original_context_length"),
            "freq_base": keys.real("rope.freq_base"),
            "freq_scale": 1.0 / factor,
            "ext_factor": 1.0,
            "attn_factor": 1.0 / plain,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
        }

    def layer(self, index: int, x: Tensor) -> Tensor:
        """Attention to the tokens in the cache and to those of x, ne (width, tokens)."""
        b, g, blk, width = self.b, self.b.g, f"blk.{index}.", x.ne[0]
        q = self._queries(blk, x)
        k, v = self._latents(blk, x)
        for tensor in (q, v, k):
            g.expand(tensor)
        out = g.expand(self._attend(blk, self._store(index, k), q))
        return project(b, f"{blk}attn_output", out, width)

    def _queries(self, blk: str, x: Tensor) -> Tensor:
        """Queries to the latent vectors, ne (rank + rotated, heads, tokens)."""
        b, g, plain = self.b, self.b.g, self.key_length - self.rotated
        q = project(b, f"{blk}attn_q", x, self.heads * self.key_length)
        q = g.reshape_3d(q, self.key_length, self.heads, b.n_tokens)
        nb1, nb2 = q.nb[1:3]
        q_nope = g.view_3d(q, plain, *q.ne[1:3], nb1=nb1, nb2=nb2, offset=0)
        q_pe = g.view_3d(q, self.rotated, *q.ne[1:3], nb1=nb1, nb2=nb2, offset=plain * q.nb[0])
        q_pe = g.rope_ext(q_pe, self.positions, None, **self.rope)
        absorbed = b.matrix(f"{blk}attn_k_b.weight", plain, self.rank, self.heads)
        q_nope = g.mul_mat(absorbed, g.permute(q_nope, 0, 2, 1, 3))
        return g.concat(g.permute(q_nope, 0, 2, 1, 3), q_pe, dim=0)

    def _latents(self, blk: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the cache keeps, ne (rank + rotated, 1, tokens), and its first `rank` elements."""
        b, g = self.b, self.b.g
        kv = project(b, f"{blk}attn_kv_a_mqa", x, self.rank + self.rotated)
        nb1 = kv.nb[1]
        v = g.view_2d(kv, self.rank, b.n_tokens, nb1=nb1, offset=0)
        offset = self.rank * kv.nb[0]
        k_pe = g.view_3d(kv, self.rotated, 1, b.n_tokens, nb1=nb1, nb2=nb1, offset=offset)
        k_pe = g.rope_ext(k_pe, self.positions, None, **self.rope)
        v = norm(g, v, b.norm(f"{blk}attn_kv_a_norm.weight", self.rank), self.eps)
        v = g.reshape_3d(v, self.rank, 1, b.n_tokens)
        return g.concat(v, k_pe, dim=0), v

    def _store(self, index: int, k: Tensor) -> Tensor:
        """Writes to the cache: all that it holds, ne (rank + rotated, 1, cells)."""
        b, g, length = self.b, self.b.g, k.ne[0]
        cache = b.cache(f"cache_k_l{index}", "f16", (length, self.cells))
        k = g.view_2d(k, length, b.n_tokens, nb1=k.nb[2], offset=0)
        g.expand(g.set_rows(cache, k, self.rows))
        nb1 = cache.nb[1]
        return g.view_4d(
            cache, length, 1, self.cells, 1, nb1=nb1, nb2=nb1, nb3=cache.nb[2], offset=0
        )

    def _attend(self, blk: str, keys: Tensor, q: Tensor) -> Tensor:
        """Every head's mixture of values, ne (value length * heads, tokens)."""
        b, g = self.b, self.b.g
        nb1, nb2, nb3 = keys.nb[1:]
        values = g.view_4d(keys, self.rank, *keys.ne[1:], nb1=nb1, nb2=nb2, nb3=nb3, offset=0)
        q = heads_outside(g, q)
        keys, values = g.permute(keys, 0, 2, 1, 3), g.permute(values, 0, 2, 1, 3)
        up = b.matrix(f"{blk}attn_v_b.weight", self.rank, self.value_length, self.heads)
        if b.flash_attn:
            mixed = g.flash_attn_ext(q, keys, values, self.mask, self.scale, 0.0, 0.0)
            g.prec_set_acc(mixed, "f32")
            out = g.mul_mat(up, g.permute(mixed, 0, 2, 1, 3))
            out = g.cont(g.permute(out, 0, 2, 1, 3))
            return g.reshape_2d(out, out.ne[0] * out.ne[1], out.ne[2])
        scores = g.mul_mat(keys, q)
        g.prec_set_acc(scores, "f32")
        weights = g.soft_max_ext(scores, self.mask, scale=self.scale, max_bias=0.0)
        out = g.mul_mat(up, g.mul_mat(g.cont(g.transpose(values)), weights))
        out = g.permute(out, 0, 2, 1, 3)
        return g.cont_2d(out, out.ne[0] * out.ne[1], out.ne[2])


def _metadata(
    layers: int,
    width: int,
    hidden: int,
    heads: int,
    lengths: tuple[int, int, int, int],
    expert: tuple[int, int, int],
    vocab: int,
) -> dict[str, Any]:
    """lengths: of latent, rotated, plain and value vectors. expert: length, number, used."""
    rank, rotated, plain, value = lengths
    keys = {
        "block_count": layers,
        "embedding_length": width,
        "feed_forward_length": hidden,
        "leading_dense_block_count": 1,
        "attention.head_count": heads,
        "attention.head_count_kv": 1,
        "attention.key_length": rank + rotated,
        "attention.value_length": rank,
        "attention.key_length_mla": plain + rotated,
        "attention.value_length_mla": value,
        "attention.kv_lora_rank": rank,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.dimension_count": rotated,
        "rope.freq_base": 1e4,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 40.0,
        "rope.scaling.original_context_length": 4096,
        "rope.scaling.yarn_log_multiplier": 0.0707,
        "expert_feed_forward_length": expert[0],
        "expert_count": expert[1],
        "expert_used_count": expert[2],
        "expert_shared_count": 2,
        "expert_weights_scale": 1.0,
        "context_length": 163840,
        "vocab_size": vocab,
    }
    return {"general.architecture": "deepseek2", **{f"deepseek2.{k}": v for k, v in keys.items()}}


_LITE = _metadata(27, 2048, 10944, 16, (512, 64, 128, 128), (1408, 64, 6), 102400)
_TINY = _metadata(3, 64, 96, 4, (32, 8, 16, 24), (32, 8, 3), 300)

ENTRIES = [
    Entry(
        "deepseek-v2-lite",
        "DeepSeek-V2-Lite: latent attention, 6 of 64 experts",
        deepseek2,
        _LITE,
        "q4_0",
        n_past=511,
    ),
    Entry("deepseek2-tiny", "for tests", deepseek2, _TINY, "f32", 2, 7),
]
