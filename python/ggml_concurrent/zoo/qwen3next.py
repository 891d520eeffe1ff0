"""Qwen3-Next: three layers of gated delta net for each one of gated attention, all with experts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..models.config import Keys, read_config
from ..models.layers import ROPE_NEOX, norm, rope, split_heads
from ..tensor import Tensor
from .blocks import embed, project, swiglu
from .builder import Builder
from .decoder import Decoder
from .moe import experts, route
from .recurrent import States, shift_in
from .workload import Entry


def qwen3next(b: Builder, metadata: Mapping[str, Any]) -> None:
    """Qwen3-Next, without the head that predicts more than one token."""
    keys, config, g = Keys(metadata), read_config(metadata), b.g
    width, eps = config.embedding_length, config.attention_layer_norm_rms_epsilon
    interval = keys.integer("full_attention_interval")
    attentive = range(interval - 1, config.block_count, interval)
    d = Decoder(b, config, keys.integer("vocab_size"), layers=attentive)
    delta_net = DeltaNet(b, keys)
    x = embed(b, d.tokens, width, d.n_vocab)
    for i in range(config.block_count):
        blk = f"blk.{i}."
        y = g.expand(norm(g, x, b.norm(f"{blk}attn_norm.weight", width), eps))
        y = _attention(d, i, y) if i in attentive else delta_net.layer(i, y)
        x = g.add(y, x)
        y = norm(g, x, b.norm(f"{blk}post_attention_norm.weight", width), eps)
        x = g.add(_feed_forward(b, blk, y, keys), x)
    x = norm(g, x, b.norm("output_norm.weight", width), eps)
    b.output(project(b, "output", g.get_rows(x, d.last), d.n_vocab), "logits")


def _attention(d: Decoder, layer: int, x: Tensor) -> Tensor:
    """Attention, the result multiplied with a gate that comes with the queries."""
    b, c, g, blk, n_tokens = d.b, d.config, d.b.g, f"blk.{layer}.", x.ne[1]
    length, heads = c.attention_key_length, c.attention_head_count
    both = project(b, f"{blk}attn_q", x, 2 * length * heads)
    k, v = (project(b, f"{blk}attn_{name}", x, c.key_width) for name in "kv")
    both = g.reshape_4d(both, 2 * length, heads, n_tokens, 1)
    q, gate = _part(b, both, length, heads, 0), _part(b, both, length, heads, length)
    k, v = split_heads(g, k, length), split_heads(g, v, length)
    q, k = _norm_and_rope(d, f"{blk}attn_q_norm", q), _norm_and_rope(d, f"{blk}attn_k_norm", k)
    out = d.attend(layer, q, k, v, 1.0 / math.sqrt(length))
    gate = g.sigmoid(g.cont_2d(gate, length * heads, n_tokens))
    return project(b, f"{blk}attn_output", g.mul(out, gate), c.embedding_length)


def _part(b: Builder, x: Tensor, length: int, heads: int, first: int) -> Tensor:
    """Elements of each head of x from that one on, ne (length, heads, tokens, 1)."""
    nb1, nb2, nb3 = x.nb[1:]
    offset = first * x.nb[0]
    return b.g.view_4d(x, length, heads, *x.ne[2:], nb1=nb1, nb2=nb2, nb3=nb3, offset=offset)


def _norm_and_rope(d: Decoder, name: str, x: Tensor) -> Tensor:
    b, c = d.b, d.config
    x = norm(b.g, x, b.norm(f"{name}.weight", x.ne[0]), c.attention_layer_norm_rms_epsilon)
    return rope(b.g, x, d.positions, c, ROPE_NEOX, c.rope_freq_base, c.rope_freq_scale)


def _feed_forward(b: Builder, blk: str, x: Tensor, keys: Keys) -> Tensor:
    """A few of many experts, and a shared one with a gate of its own."""
    g, n_expert, width = b.g, keys.integer("expert_count"), x.ne[0]
    hidden = keys.integer("expert_feed_forward_length")
    chosen, weights = route(b, blk, x, n_expert, keys.integer("expert_used_count"), normalize=True)
    routed = experts(b, blk, x, chosen, weights, hidden, n_expert)
    shared = swiglu(b, blk, x, keys.integer("expert_shared_feed_forward_length"), "_shexp")
    gate = b.vector(f"{blk}ffn_gate_inp_shexp.weight", width, scale=width**-0.5)
    return g.add(routed, g.mul(shared, g.sigmoid(g.mul_mat(gate, x))))


class DeltaNet:
    """The gated delta net: a convolution over the last tokens, then a matrix that is updated."""

    def __init__(self, b: Builder, keys: Keys) -> None:
        self.b, self.states = b, States(b)
        self.kernel = keys.integer("ssm.conv_kernel")
        self.inner = keys.integer("ssm.inner_size")
        self.length = keys.integer("ssm.state_size")
        self.key_heads = keys.integer("ssm.group_count")
        self.heads = keys.integer("ssm.time_step_rank")
        self.eps = keys.real("attention.layer_norm_rms_epsilon")
        self.channels = self.inner + 2 * self.key_heads * self.length  # of the convolution

    def layer(self, index: int, x: Tensor) -> Tensor:
        """x with what came before it, ne (width, tokens)."""
        b, g, blk, (width, n_tokens) = self.b, self.b.g, f"blk.{index}.", x.ne[:2]
        qkv = project(b, f"{blk}attn_qkv", x, self.channels)
        qkv = g.reshape_3d(qkv, self.channels, n_tokens, 1)
        z = project(b, f"{blk}attn_gate", x, self.inner)
        beta, decay = self._beta_and_decay(blk, x)
        conv_cache = self.states.cache(f"cache_r_l{index}", (self.kernel - 1) * self.channels)
        before = g.reshape_3d(self.states.read(conv_cache), self.kernel - 1, self.channels, 1)
        window = shift_in(self.states, conv_cache, before, qkv)
        cache = self.states.cache(f"cache_s_l{index}", self.length * self.inner)
        state = g.reshape_4d(self.states.read(cache), self.length, self.length, self.heads, 1)
        q, k, v = self._convolve(blk, window)
        both = g.gated_delta_net(q, k, v, decay, beta, state, 1)
        out, state = self._split(both, v)
        self.states.write(cache, state)
        out = norm(g, out, b.norm(f"{blk}ssm_norm.weight", self.length), self.eps)
        out = g.mul(out, g.silu(g.reshape_4d(z, self.length, self.heads, n_tokens, 1)))
        out = project(b, f"{blk}ssm_out", g.reshape_3d(out, self.inner, n_tokens, 1), width)
        return g.reshape_2d(out, width, n_tokens)

    def _beta_and_decay(self, blk: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """How much of the state is replaced, and the logarithm of what stays of it.

        Both ne (1, heads, tokens, 1).
        """
        b, g, n_tokens, per_key = self.b, self.b.g, x.ne[1], self.heads // self.key_heads
        both = project(b, f"{blk}ssm_ba", x, 2 * self.heads)
        both = g.reshape_4d(both, 2 * per_key, self.key_heads, n_tokens, 1)
        beta, alpha = (_part(b, both, per_key, self.key_heads, i * per_key) for i in range(2))
        beta = g.sigmoid(g.cont(beta))
        alpha = g.cont_3d(alpha, self.heads, n_tokens, 1)
        alpha = g.add(alpha, b.vector(f"{blk}ssm_dt.bias", self.heads))
        decay = b.vector(f"{blk}ssm_a", self.heads, scale=0.2, offset=-1.0)
        decay = g.mul(g.softplus(alpha), decay)
        ne = (1, self.heads, n_tokens, 1)
        return g.reshape_4d(beta, *ne), g.reshape_4d(decay, *ne)

    def _convolve(self, blk: str, window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each ne (length, heads, tokens, 1)."""
        b, g, length = self.b, self.b.g, self.length
        kernel = b.vector(f"{blk}ssm_conv1d.weight", self.kernel, self.channels, scale=0.5)
        x = g.silu(g.ssm_conv(window, kernel))
        n = self.key_heads
        q, k = self._heads(x, n, 0), self._heads(x, n, n * length)
        v = self._heads(x, self.heads, 2 * n * length)
        return self._spread(self._unit(q)), self._spread(self._unit(k)), v

    def _heads(self, x: Tensor, heads: int, first: int) -> Tensor:
        """Elements of each token from that one on, ne (length, heads, tokens, 1)."""
        nb1, nb2, nb3 = self.length * x.nb[0], x.nb[1], x.nb[2]
        offset = first * x.nb[0]
        return self.b.g.view_4d(
            x, self.length, heads, x.ne[1], 1, nb1=nb1, nb2=nb2, nb3=nb3, offset=offset
        )

    def _unit(self, x: Tensor) -> Tensor:
        """Each head scaled to length 1."""
        n = x.ne[0]
        return self.b.g.scale(self.b.g.rms_norm(x, self.eps / n), n**-0.5)

    def _spread(self, x: Tensor) -> Tensor:
        """Each key head repeated for the value heads that use it."""
        g, (length, n, n_tokens) = self.b.g, x.ne[:3]
        if n == self.heads:
            return x
        x = g.repeat_4d(
            g.reshape_4d(x, length, 1, n, n_tokens), length, self.heads // n, n, n_tokens
        )
        return g.reshape_4d(x, length, self.heads, n_tokens, 1)

    def _split(self, both: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The result for each token, like v, and the state after the last of them."""
        g, item, n = self.b.g, both.nb[0], self.length
        nb1, nb2 = n * item, self.inner * item
        nb3 = nb2 * v.ne[2]
        out = g.view_4d(both, *v.ne, nb1=nb1, nb2=nb2, nb3=nb3, offset=0)
        nb2, nb3, offset = n * nb1, n * nb1 * self.heads, nb3
        state = g.view_4d(both, n, n, self.heads, 1, nb1=nb1, nb2=nb2, nb3=nb3, offset=offset)
        return out, state


def _metadata(
    layers: int,
    width: int,
    attention: tuple[int, int, int],
    delta: tuple[int, int, int],
    expert: tuple[int, int, int],
    vocab: int,
) -> dict[str, Any]:
    """attention: heads, key heads, length. delta: the same. expert: length, number, used."""
    keys = {
        "block_count": layers,
        "embedding_length": width,
        "feed_forward_length": expert[0] * expert[2],
        "attention.head_count": attention[0],
        "attention.head_count_kv": attention[1],
        "attention.key_length": attention[2],
        "attention.value_length": attention[2],
        "attention.layer_norm_rms_epsilon": 1e-6,
        "full_attention_interval": 4,
        "rope.dimension_count": attention[2] // 4,
        "rope.freq_base": 1e7,
        "ssm.conv_kernel": 4,
        "ssm.inner_size": delta[0] * delta[2],
        "ssm.state_size": delta[2],
        "ssm.group_count": delta[1],
        "ssm.time_step_rank": delta[0],
        "expert_feed_forward_length": expert[0],
        "expert_shared_feed_forward_length": expert[0],
        "expert_count": expert[1],
        "expert_used_count": expert[2],
        "context_length": 262144,
        "vocab_size": vocab,
    }
    return {"general.architecture": "qwen3next", **{f"qwen3next.{k}": v for k, v in keys.items()}}


def _entry(name: str, about: str, layers: int, n_expert: int) -> Entry:
    parameters = _metadata(layers, 2048, (16, 2, 256), (32, 16, 128), (512, n_expert, 10), 151936)
    return Entry(name, about, qwen3next, parameters, "q4_0", n_past=511)


ENTRIES = [
    _entry("qwen3next-80b-a3b", "Qwen3-Next 80B-A3B: delta net and attention", 48, 512),
    _entry("qwen3next-4l", "Qwen3-Next, 4 layers and 64 experts of the same sizes", 4, 64),
    Entry(
        "qwen3next-tiny",
        "for tests",
        qwen3next,
        _metadata(4, 64, (4, 2, 32), (4, 2, 16), (32, 8, 3), 300),
        "f32",
        2,
        7,
    ),
]
