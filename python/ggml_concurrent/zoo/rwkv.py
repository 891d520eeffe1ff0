"""RWKV-7: time mixing with a matrix-valued state, and channel mixing; no attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..tensor import Tensor
from .blocks import embed, project
from .builder import Builder
from .recurrent import States
from .workload import Entry

_MIXES = 6  # receptance, decay, key, value, in-context learning rate, gate
_DECAY_SCALE = -0.606531  # -exp(-0.5)
_GROUP_NORM_EPS = 64e-5


@dataclass(frozen=True)
class Config:
    """Hyperparameters, named like the metadata's keys with dots as underscores."""

    block_count: int
    embedding_length: int
    feed_forward_length: int
    wkv_head_size: int
    attention_layer_norm_epsilon: float
    attention_decay_lora_rank: int
    attention_iclr_lora_rank: int
    attention_value_residual_mix_lora_rank: int
    attention_gate_lora_rank: int
    vocab_size: int


def rwkv7(b: Builder, metadata: Mapping[str, Any]) -> None:
    """RWKV-7, of which the state of one sequence has the same size after any number of tokens."""
    c = _config(metadata)
    model = _Model(b, c)
    tokens = b.ids("tokens", b.n_tokens, c.vocab_size)
    x = model.norm(embed(b, tokens, c.embedding_length, c.vocab_size), "token_embd_norm")
    last = b.input("last", "i32", [b.n_tokens - 1])
    for layer in range(c.block_count):
        x = model.layer(layer, x, last)
    x = model.norm(x, "output_norm")
    b.output(project(b, "output", x, c.vocab_size), "logits")


def _config(metadata: Mapping[str, Any]) -> Config:
    found = {key.removeprefix("rwkv7.").replace(".", "_"): v for key, v in metadata.items()}
    return Config(**{field.name: found[field.name] for field in fields(Config)})


class _Model:
    """The layers of one graph."""

    def __init__(self, b: Builder, config: Config) -> None:
        self.b, self.g, self.config = b, b.g, config
        self.states = States(b)
        self.first_value: Tensor | None = None  # layer 0's values, which all others mix in

    def norm(self, x: Tensor, name: str) -> Tensor:
        """Layer norm with weight and bias."""
        b, g = self.b, self.g
        weight, bias = b.norm(f"{name}.weight", x.ne[0]), b.vector(f"{name}.bias", x.ne[0])
        x = g.norm(x, self.config.attention_layer_norm_epsilon)
        return g.add(g.mul(x, weight), bias)

    def layer(self, index: int, x: Tensor, last: Tensor) -> Tensor:
        """Time mixing, then channel mixing, each of the tokens and the ones before them."""
        g, blk, width = self.g, f"blk.{index}.", self.config.embedding_length
        x = g.reshape_3d(x, width, self.b.n_tokens, 1)
        cache = self.states.cache(f"cache_r_l{index}", 2 * width)
        before = g.reshape_3d(self.states.read(cache), width, 2, 1)
        wkv_cache = self.states.cache(f"cache_s_l{index}", width * self.config.wkv_head_size)
        state = self.states.read(wkv_cache)
        att = self.norm(x, f"{blk}attn_norm")
        shifted = self._shift(att, g.expand(self._token(before, 0)))
        mixed, state = self._time_mix(index, att, shifted, state)
        self.states.write(wkv_cache, state)
        x = g.add(mixed, x)
        ffn = self.norm(x, f"{blk}attn_norm_2")
        newest = g.concat(self._token(att, -1), self._token(ffn, -1), dim=1)
        self.states.write(cache, g.view_1d(newest, 2 * width, offset=0))
        shifted = self._shift(ffn, self._token(before, 1))
        x, ffn, shifted = (g.reshape_2d(t, width, self.b.n_tokens) for t in (x, ffn, shifted))
        if index == self.config.block_count - 1:
            x, ffn, shifted = (g.get_rows(t, last) for t in (x, ffn, shifted))
        return g.add(self._channel_mix(blk, ffn, shifted), x)

    def _token(self, x: Tensor, index: int) -> Tensor:
        """One token of x, ne (width, 1, 1)."""
        offset = index % x.ne[1] * x.nb[1]
        return self.g.view_3d(x, x.ne[0], 1, 1, nb1=x.nb[1], nb2=x.nb[2], offset=offset)

    def _shift(self, x: Tensor, first: Tensor) -> Tensor:
        """For each token of x the one before it, `first` for the first one."""
        g, (width, n_tokens) = self.g, x.ne[:2]
        g.expand(x)  # llama.cpp's order for one token, too
        if n_tokens == 1:
            return g.cont(first)
        rest = g.view_3d(x, width, n_tokens - 1, 1, nb1=x.nb[1], nb2=x.nb[2], offset=0)
        return g.concat(first, rest, dim=1)

    def _channel_mix(self, blk: str, x: Tensor, shifted: Tensor) -> Tensor:
        b, g, width = self.b, self.g, x.ne[0]
        mix = b.vector(f"{blk}channel_mix_lerp_k.weight", width, offset=0.5)
        mixed = g.add(g.mul(g.sub(shifted, x), mix), x)
        k = project(b, f"{blk}channel_mix_key", mixed, self.config.feed_forward_length)
        return project(b, f"{blk}channel_mix_value", g.sqr(g.relu(k)), width)

    def _time_mix(
        self, index: int, x: Tensor, shifted: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The tokens mixed with all before them, and the state after the last of them."""
        b, g, c, blk = self.b, self.g, self.config, f"blk.{index}."
        width = c.embedding_length
        xr, xw, xk, xv, xa, xg = self._mixes(blk, x, shifted)
        r = project(b, f"{blk}time_mix_receptance", xr, width)
        w = self._low_rank(blk, "w", xw, c.attention_decay_lora_rank, inner=g.tanh)
        w = g.exp(g.scale(g.sigmoid(w), _DECAY_SCALE))
        k = project(b, f"{blk}time_mix_key", xk, width)
        v = self._value(index, xv)
        gate = self._low_rank(blk, "g", xg, c.attention_gate_lora_rank, inner=g.sigmoid)
        a = g.sigmoid(self._low_rank(blk, "a", xa, c.attention_iclr_lora_rank))
        kk = g.mul(k, b.vector(f"{blk}time_mix_k_k.weight", width, offset=0.8))
        ka = g.mul(k, b.vector(f"{blk}time_mix_k_a.weight", width, offset=1.0))
        k = g.add(k, g.sub(g.mul(a, ka), ka))
        r, w, k, v, a, kk = (self._heads(t) for t in (r, w, k, v, a, kk))
        kk = g.l2_norm(kk, 1e-12)
        out = g.rwkv_wkv7(r, w, k, v, g.neg(kk), g.mul(kk, a), state)
        n = width * b.n_tokens
        state = g.view_1d(out, state.ne[0], offset=n * out.nb[0])
        x = self._group_norm(blk, g.view_1d(out, n, offset=0))
        r_k = b.vector(f"{blk}time_mix_r_k.weight", width)
        rk = g.mul(g.mul(k, r), g.reshape_2d(r_k, *k.ne[:2]))
        x = g.add(x, g.reshape_2d(g.mul(v, g.sum_rows(rk)), width, b.n_tokens))
        x = project(b, f"{blk}time_mix_output", g.mul(x, gate), width)
        return g.reshape_3d(x, width, b.n_tokens, 1), state

    def _heads(self, x: Tensor) -> Tensor:
        """ne (head size, heads, tokens)."""
        size, width = self.config.wkv_head_size, self.config.embedding_length
        return self.g.reshape_3d(x, size, width // size, self.b.n_tokens)

    def _mixes(self, blk: str, x: Tensor, shifted: Tensor) -> list[Tensor]:
        """Six blends of each token with the one before it, each ne (width, tokens)."""
        g, (width, n_tokens) = self.g, x.ne[:2]
        difference = g.repeat_4d(g.sub(shifted, x), width, n_tokens, 1, _MIXES)
        mix = self.b.vector(f"{blk}time_mix_lerp_fused.weight", width, 1, 1, _MIXES, offset=0.5)
        mixed = g.add(g.mul(difference, mix), x)
        return [
            g.view_2d(mixed, width, n_tokens, nb1=mixed.nb[1], offset=i * mixed.nb[3])
            for i in range(_MIXES)
        ]

    def _low_rank(
        self,
        blk: str,
        name: str,
        x: Tensor,
        rank: int,
        inner: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Two small matrices with a function between them, and a bias but for the gate."""
        g, (down, up) = self.g, self._small(blk, name, x.ne[0], rank)
        y = g.mul_mat(down, x)
        y = g.mul_mat(up, inner(y) if inner else y)
        return y if name == "g" else g.add(y, self._bias(blk, name, x.ne[0]))

    def _small(self, blk: str, name: str, width: int, rank: int) -> tuple[Tensor, Tensor]:
        """Matrices to `rank` elements and back, never quantised; those of the decay always f32."""
        first, second = (f"{blk}time_mix_{name}{i}.weight" for i in (1, 2))
        if name == "w":
            down = self.b.vector(first, width, rank, scale=width**-0.5)
            return down, self.b.vector(second, rank, width, scale=rank**-0.5)
        down = self.b.matrix(first, width, rank, quantize=False)
        return down, self.b.matrix(second, rank, width, quantize=False)

    def _bias(self, blk: str, name: str, width: int) -> Tensor:
        return self.b.vector(f"{blk}time_mix_{name}0.weight", width)

    def _value(self, index: int, x: Tensor) -> Tensor:
        """Values, in which layer 0's are mixed in all others."""
        b, g, blk, width = self.b, self.g, f"blk.{index}.", x.ne[0]
        v = project(b, f"{blk}time_mix_value", x, width)
        if self.first_value is None:
            self.first_value = v
            # Files have the matrices for layer 0 too, though nothing computes with them.
            self._small(blk, "v", width, self.config.attention_iclr_lora_rank)
            self._bias(blk, "v", width)
            return v
        rank = self.config.attention_value_residual_mix_lora_rank
        share = g.sigmoid(self._low_rank(blk, "v", x, rank))
        return g.add(v, g.mul(g.sub(self.first_value, v), share))

    def _group_norm(self, blk: str, x: Tensor) -> Tensor:
        """A norm of each head, with weight and bias: ne (width, tokens)."""
        b, g, width = self.b, self.g, self.config.embedding_length
        x = g.norm(self._heads(x), _GROUP_NORM_EPS)
        x = g.mul(g.reshape_2d(x, width, b.n_tokens), b.norm(f"{blk}time_mix_ln.weight", width))
        return g.add(x, b.vector(f"{blk}time_mix_ln.bias", width))


def _metadata(
    layers: int, width: int, head: int, ranks: tuple[int, int, int, int], vocab: int
) -> dict[str, Any]:
    """ranks: of decay, in-context learning rate, value mixing and gate."""
    keys = {
        "block_count": layers,
        "embedding_length": width,
        "feed_forward_length": 4 * width,
        "attention.head_count": 0,
        "attention.layer_norm_epsilon": 1e-5,
        "attention.decay_lora_rank": ranks[0],
        "attention.iclr_lora_rank": ranks[1],
        "attention.value_residual_mix_lora_rank": ranks[2],
        "attention.gate_lora_rank": ranks[3],
        "wkv.head_size": head,
        "token_shift_count": 2,
        "context_length": 1048576,
        "vocab_size": vocab,
    }
    return {"general.architecture": "rwkv7", **{f"rwkv7.{k}": v for k, v in keys.items()}}


def _entry(name: str, about: str, metadata: Mapping[str, Any], dtype: str) -> Entry:
    return Entry(name, about, rwkv7, metadata, dtype, n_past=511)


ENTRIES = [
    _entry("rwkv7-0.1b", "RWKV-7 0.1B", _metadata(12, 768, 64, (64, 64, 32, 128), 65536), "f16"),
    _entry("rwkv7-1.5b", "RWKV-7 1.5B", _metadata(24, 2048, 64, (96, 96, 64, 256), 65536), "q4_0"),
    _entry("rwkv7-small", "RWKV-7, 6 x 256", _metadata(6, 256, 64, (32, 32, 32, 64), 8192), "f32"),
    Entry("rwkv7-tiny", "for tests", rwkv7, _metadata(2, 128, 64, (8, 8, 4, 16), 300), "f32", 2, 7),
]
