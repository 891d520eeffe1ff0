"""Falcon-H1: in each layer attention and Mamba-2 read the same activations side by side."""

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
from .recurrent import States, shift_in
from .workload import Entry


def falcon_h1(b: Builder, metadata: Mapping[str, Any]) -> None:
    """Falcon-H1; the multipliers of its config are part of the weights, as in GGUF files."""
    keys, config, g = Keys(metadata), read_config(metadata), b.g
    d, mamba = Decoder(b, config, keys.integer("vocab_size")), Mamba2(b, keys)
    width, eps = config.embedding_length, config.attention_layer_norm_rms_epsilon
    x = embed(b, d.tokens, width, d.n_vocab)
    for i in range(config.block_count):
        blk = f"blk.{i}."
        weight = b.norm(f"{blk}attn_norm.weight", width)
        attended = _attention(d, i, norm(g, x, weight, eps))
        # llama.cpp computes the norm once more here.
        mixed = mamba.layer(i, norm(g, x, weight, eps))
        (x,) = d.take_last(i, g.add(g.add(attended, mixed), x))
        y = norm(g, x, b.norm(f"{blk}ffn_norm", width), eps)
        x = g.add(swiglu(b, blk, y, config.feed_forward_length), x)
    logits(b, x, eps, d.n_vocab)


def _attention(d: Decoder, layer: int, x: Tensor) -> Tensor:
    b, c, blk = d.b, d.config, f"blk.{layer}."
    heads, kv_heads = c.attention_head_count, c.attention_head_count_kv
    q, k, v = query_key_value(b, blk, x, c.attention_key_length, heads, kv_heads)
    base, scale = c.rope_freq_base, c.rope_freq_scale
    q = rope(b.g, q, d.positions, c, ROPE_NEOX, base, scale)
    k = rope(b.g, k, d.positions, c, ROPE_NEOX, base, scale)
    out = d.attend(layer, q, k, v, 1.0 / math.sqrt(c.attention_key_length))
    return project(b, f"{blk}attn_output", out, c.embedding_length)


class Mamba2:
    """Mamba-2 without a norm at its end: a convolution over the last tokens, then a scan."""

    def __init__(self, b: Builder, keys: Keys) -> None:
        self.b, self.states = b, States(b)
        self.kernel = keys.integer("ssm.conv_kernel")
        self.inner = keys.integer("ssm.inner_size")
        self.state = keys.integer("ssm.state_size")
        self.heads = keys.integer("ssm.time_step_rank")
        self.groups = keys.integer("ssm.group_count")
        self.channels = self.inner + 2 * self.groups * self.state  # of the convolution

    def layer(self, index: int, x: Tensor) -> Tensor:
        """x with what came before it, ne (width, tokens)."""
        b, g, blk, (width, n_tokens) = self.b, self.b.g, f"blk.{index}.", x.ne[:2]
        conv_cache = self.states.cache(f"cache_r_l{index}", (self.kernel - 1) * self.channels)
        conv = g.reshape_3d(self.states.read(conv_cache), self.kernel - 1, self.channels, 1)
        zxbcdt = project(b, f"{blk}ssm_in", x, self.inner + self.channels + self.heads)
        zxbcdt = g.reshape_3d(zxbcdt, zxbcdt.ne[0], n_tokens, 1)
        z = self._heads(zxbcdt, self.inner // self.heads, self.heads, 0)
        xbc = self._part(zxbcdt, self.channels, self.inner)
        dt = self._part(zxbcdt, self.heads, self.inner + self.channels)
        xbc = self._convolve(blk, shift_in(self.states, conv_cache, conv, xbc))
        y = self._scan(index, xbc, dt)
        y = g.swiglu_split(g.cont(z), y)
        return project(b, f"{blk}ssm_out", g.reshape_2d(y, self.inner, n_tokens), width)

    def _part(self, x: Tensor, n: int, first: int) -> Tensor:
        """n elements of each token from that one on, ne (n, tokens, 1)."""
        nb1, nb2 = x.nb[1], x.nb[2]
        return self.b.g.view_3d(x, n, x.ne[1], 1, nb1=nb1, nb2=nb2, offset=first * x.nb[0])

    def _heads(self, x: Tensor, length: int, n: int, first: int) -> Tensor:
        """n * length elements of each token, ne (length, n, tokens, 1)."""
        nb1, nb2, nb3 = length * x.nb[0], x.nb[1], x.nb[2]
        offset = first * x.nb[0]
        return self.b.g.view_4d(x, length, n, x.ne[1], 1, nb1=nb1, nb2=nb2, nb3=nb3, offset=offset)

    def _convolve(self, blk: str, x: Tensor) -> Tensor:
        """The convolution of each channel, ne (channels, tokens, 1)."""
        b, g = self.b, self.b.g
        kernel = b.vector(f"{blk}ssm_conv1d.weight", self.kernel, self.channels, scale=0.5)
        bias = b.vector(f"{blk}ssm_conv1d.bias", self.channels)
        return g.silu(g.add(g.ssm_conv(x, kernel), bias))

    def _scan(self, index: int, xbc: Tensor, dt: Tensor) -> Tensor:
        """The recurrence over the tokens, ne (inner / heads, heads, tokens, 1)."""
        b, g, blk, length = self.b, self.b.g, f"blk.{index}.", self.inner // self.heads
        n_group = self.groups * self.state
        x = self._heads(xbc, length, self.heads, 0)
        in_ = self._heads(xbc, self.state, self.groups, self.inner)
        out = self._heads(xbc, self.state, self.groups, self.inner + n_group)
        dt = g.add(g.cont(dt), b.vector(f"{blk}ssm_dt.bias", self.heads, scale=0.5, offset=-1.0))
        decay = b.vector(f"{blk}ssm_a", 1, self.heads, scale=0.2, offset=-1.0)
        cache = self.states.cache(f"cache_s_l{index}", self.state * self.inner)
        state = g.reshape_4d(self.states.rows(cache), self.state, length, self.heads, 1)
        both = g.expand(g.ssm_scan(state, x, dt, decay, in_, out, self.states.ids, 1))
        n = self.inner * b.n_tokens
        self.states.write(cache, g.view_1d(both, cache.ne[0], offset=n * both.nb[0]))
        y = g.view_4d(
            both,
            *x.ne[:3],
            1,
            nb1=x.nb[1],
            nb2=self.heads * x.nb[1],
            nb3=b.n_tokens * self.heads * x.nb[1],
            offset=0,
        )
        skip = b.vector(f"{blk}ssm_d", 1, self.heads, offset=1.0)
        return g.add(y, g.mul(x, skip))


def _metadata(
    layers: int,
    width: int,
    hidden: int,
    attention: tuple[int, int, int],
    mamba: tuple[int, int, int],
    vocab: int,
    context: int,
) -> dict[str, Any]:
    """attention: heads, key heads, length. mamba: heads, length, state."""
    keys = {
        "block_count": layers,
        "embedding_length": width,
        "feed_forward_length": hidden,
        "attention.head_count": attention[0],
        "attention.head_count_kv": attention[1],
        "attention.key_length": attention[2],
        "attention.value_length": attention[2],
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 1e11,
        "ssm.conv_kernel": 4,
        "ssm.inner_size": mamba[0] * mamba[1],
        "ssm.state_size": mamba[2],
        "ssm.time_step_rank": mamba[0],
        "ssm.group_count": 1,
        "context_length": context,
        "vocab_size": vocab,
    }
    return {"general.architecture": "falcon-h1", **{f"falcon-h1.{k}": v for k, v in keys.items()}}


ENTRIES = [
    Entry(
        "falcon-h1-0.5b",
        "Falcon-H1 0.5B, attention beside Mamba-2",
        falcon_h1,
        _metadata(36, 1024, 2048, (8, 2, 64), (24, 64, 128), 32784, 16384),
        "f16",
        n_past=511,
    ),
    Entry(
        "falcon-h1-1.5b",
        "Falcon-H1 1.5B, attention beside Mamba-2",
        falcon_h1,
        _metadata(24, 2048, 4096, (8, 2, 128), (48, 64, 256), 65537, 131072),
        "q4_0",
        n_past=511,
    ),
    Entry(
        "falcon-h1-tiny",
        "for tests",
        falcon_h1,
        _metadata(2, 64, 96, (4, 2, 16), (6, 16, 16), 300, 1024),
        "f32",
        2,
        7,
    ),
]
