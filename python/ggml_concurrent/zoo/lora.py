"""Llama with low-rank adapters: beside each matrix stand two thin ones for every adapter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..models.config import Config, Keys
from ..models.layers import ROPE_NORM, norm, rope, split_heads
from ..models.llama import llama_config
from ..tensor import Tensor
from .blocks import embed, logits
from .builder import Builder
from .decoder import Decoder
from .llama import llama_metadata
from .workload import Entry

RANK = 16
ALPHA = 32.0  # adapter.lora.alpha: what an adapter adds is scaled by alpha / rank


class _Adapters:
    """Matrix products of which `n` adapters change the result."""

    def __init__(self, b: Builder, n: int) -> None:
        self._b, self._n = b, n

    def product(self, name: str, x: Tensor, n_out: int) -> Tensor:
        """(W + alpha / rank * (B A + B' A' + ...)) x, ne (n_out, tokens)."""
        g, n_in = self._b.g, x.ne[0]
        y = g.mul_mat(self._b.matrix(f"{name}.weight", n_in, n_out), x)
        for i in range(self._n):
            a, b = self._pair(f"{name}.weight", i, n_in, n_out)
            y = g.add(y, g.scale(g.mul_mat(b, g.mul_mat(a, x)), ALPHA / RANK))
        return y

    def _pair(self, name: str, i: int, n_in: int, n_out: int) -> tuple[Tensor, Tensor]:
        """A of ne (n_in, rank) and B of ne (rank, n_out), f32 as adapter files have them."""
        a = self._b.vector(f"{name}.lora_a.{i}", n_in, RANK, scale=n_in**-0.5)
        b = self._b.vector(f"{name}.lora_b.{i}", RANK, n_out, scale=0.2 * RANK**-0.5)
        return a, b


def llama_lora(b: Builder, metadata: Mapping[str, Any], *, adapters: int) -> None:
    """A dense Llama; the adapters change every matrix of its layers."""
    g, config = b.g, llama_config(metadata)
    d = Decoder(b, config, Keys(metadata).integer("vocab_size"))
    adapted = _Adapters(b, adapters)
    width, eps = config.embedding_length, config.attention_layer_norm_rms_epsilon
    x = embed(b, d.tokens, width, d.n_vocab)
    for i in range(config.block_count):
        blk = f"blk.{i}."
        y = _attention(d, adapted, i, norm(g, x, b.norm(f"{blk}attn_norm.weight", width), eps))
        y, x = d.take_last(i, y, x)
        x = g.add(y, x)
        y = norm(g, x, b.norm(f"{blk}ffn_norm.weight", width), eps)
        x = g.add(_feed_forward(b, adapted, blk, config, y), x)
    logits(b, x, eps, d.n_vocab)


def _attention(d: Decoder, adapted: _Adapters, layer: int, x: Tensor) -> Tensor:
    g, c, blk = d.b.g, d.config, f"blk.{layer}."
    length = c.attention_key_length
    q = adapted.product(f"{blk}attn_q", x, length * c.attention_head_count)
    k = adapted.product(f"{blk}attn_k", x, c.key_width)
    v = adapted.product(f"{blk}attn_v", x, c.value_width)
    q, k, v = (split_heads(g, part, length) for part in (q, k, v))
    base, scale = c.rope_freq_base, c.rope_freq_scale
    q, k = (rope(g, part, d.positions, c, ROPE_NORM, base, scale) for part in (q, k))
    out = d.attend(layer, q, k, v, 1.0 / math.sqrt(length))
    return adapted.product(f"{blk}attn_output", out, c.embedding_length)


def _feed_forward(b: Builder, adapted: _Adapters, blk: str, config: Config, x: Tensor) -> Tensor:
    up = adapted.product(f"{blk}ffn_up", x, config.feed_forward_length)
    gate = adapted.product(f"{blk}ffn_gate", x, config.feed_forward_length)
    return adapted.product(f"{blk}ffn_down", b.g.swiglu_split(gate, up), x.ne[0])


_1B = llama_metadata(16, 2048, 8192, 32, 8, 128256, 5e5)
_SMALL = llama_metadata(4, 512, 1536, 8, 8, 4096)
_TINY = llama_metadata(2, 64, 96, 4, 2, 300)
_NUMBER = {1: "an adapter", 2: "two adapters"}


def _entry(
    name: str, about: str, metadata: Any, adapters: int, dtype: str, n_tokens: int, n_past: int
) -> Entry:
    about = f"{about} with {_NUMBER[adapters]} of rank {RANK}"
    options = {"adapters": adapters}
    return Entry(name, about, llama_lora, metadata, dtype, n_tokens, n_past, options)


ENTRIES = [
    _entry("llama-1b-lora", "Llama 1B shape", _1B, 1, "q4_0", 1, 511),
    _entry("llama-1b-lora2", "Llama 1B shape", _1B, 2, "q4_0", 1, 511),
    _entry("llama-lora-small", "Llama, 4 x 512,", _SMALL, 1, "q4_0", 1, 255),
    _entry("llama-lora2-small", "Llama, 4 x 512,", _SMALL, 2, "q4_0", 1, 255),
    _entry("llama-lora-tiny", "for tests: Llama", _TINY, 1, "f32", 2, 7),
    _entry("llama-lora2-tiny", "for tests: Llama", _TINY, 2, "f32", 2, 7),
]
