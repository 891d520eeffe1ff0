"""Gemma 3.

RMS norms before and after each half of a layer, normalised queries and keys, and sliding-window
attention in all layers but every sixth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .base import Inputs, Model
from .cache import NewTensor
from .config import Config, Keys, read_config
from .layers import ROPE_NEOX, attention, linear, norm, rope, split_heads
from .weights import Source

if TYPE_CHECKING:
    from ..graph import Graph
    from ..tensor import Tensor

#: Gemma 3 27B scales its queries by the width per head instead of the key length.
LAYERS_OF_27B = 62


@dataclass(frozen=True)
class Layer:
    """One layer's weights, named as in the file."""

    attn_norm: Tensor
    attn_q: Tensor
    attn_k: Tensor
    attn_v: Tensor
    attn_q_norm: Tensor
    attn_k_norm: Tensor
    attn_output: Tensor
    post_attention_norm: Tensor
    ffn_norm: Tensor
    ffn_gate: Tensor
    ffn_up: Tensor
    ffn_down: Tensor
    post_ffw_norm: Tensor


class Gemma3(Model):
    """Gemma 3, text only."""

    architecture = "gemma3"

    def __init__(
        self,
        metadata: Mapping[str, Any],
        weights: Source,
        new: NewTensor,
        cells: int,
        *,
        flash_attn: bool = False,
    ) -> None:
        super().__init__(gemma3_config(metadata), weights, new, cells, flash_attn=flash_attn)
        self.layers = [self._load(i) for i in range(self.config.block_count)]

    def embed(self, g: Graph, tokens: Tensor) -> Tensor:
        """Embeddings, scaled up by the square root of their width."""
        return g.scale(super().embed(g, tokens), math.sqrt(self.config.embedding_length))

    def layer(self, g: Graph, index: int, x: Tensor, inputs: Inputs) -> Tensor:
        """Attention, then a GeGLU feed-forward, each with a norm before and after it."""
        w, eps = self.layers[index], self.config.attention_layer_norm_rms_epsilon
        y = self._attend(g, index, norm(g, x, w.attn_norm, eps), inputs)
        if self.is_last(index):
            y = g.get_rows(y, inputs.last)
        y = norm(g, y, w.post_attention_norm, eps)
        if self.is_last(index):
            x = g.get_rows(x, inputs.last)
        x = g.add(y, x)
        y = norm(g, x, w.ffn_norm, eps)
        up = g.mul_mat(w.ffn_up, y)
        y = linear(g, w.ffn_down, g.geglu_split(g.mul_mat(w.ffn_gate, y), up))
        return g.add(norm(g, y, w.post_ffw_norm, eps), x)

    def logits(self, g: Graph, x: Tensor) -> Tensor:
        """Logits, squashed into (-cap, cap) where the file asks for it."""
        y = super().logits(g, x)
        cap = self.config.final_logit_softcapping
        return g.scale(g.tanh(g.scale(y, 1.0 / cap)), cap) if cap else y

    def _attend(self, g: Graph, index: int, x: Tensor, inputs: Inputs) -> Tensor:
        config, w = self.config, self.layers[index]
        eps = config.attention_layer_norm_rms_epsilon
        windowed = config.is_windowed(index)
        freq = (
            (config.rope_freq_base_swa, 1.0)
            if windowed
            else (config.rope_freq_base, config.rope_freq_scale)
        )
        q = split_heads(g, g.mul_mat(w.attn_q, x), config.attention_key_length)
        k = split_heads(g, g.mul_mat(w.attn_k, x), config.attention_key_length)
        v = split_heads(g, g.mul_mat(w.attn_v, x), config.attention_value_length)
        q = rope(g, norm(g, q, w.attn_q_norm, eps), inputs.positions, config, ROPE_NEOX, *freq)
        k = rope(g, norm(g, k, w.attn_k_norm, eps), inputs.positions, config, ROPE_NEOX, *freq)
        q = g.scale(q, _query_scale(config))
        mask = inputs.mask_of(windowed)
        out = attention(g, self.cache, index, (q, k, v), inputs.rows, mask, scale=1.0)
        return linear(g, w.attn_output, out)

    def _load(self, index: int) -> Layer:
        c, get = self.config, self.weights.get
        blk, width, hidden = f"blk.{index}.", c.embedding_length, c.feed_forward_length
        q_width = c.attention_key_length * c.attention_head_count
        out_width = c.attention_value_length * c.attention_head_count
        return Layer(
            attn_norm=get(blk + "attn_norm.weight", width),
            attn_q=get(blk + "attn_q.weight", width, q_width),
            attn_k=get(blk + "attn_k.weight", width, c.key_width),
            attn_v=get(blk + "attn_v.weight", width, c.value_width),
            attn_q_norm=get(blk + "attn_q_norm.weight", c.attention_key_length),
            attn_k_norm=get(blk + "attn_k_norm.weight", c.attention_key_length),
            attn_output=get(blk + "attn_output.weight", out_width, width),
            post_attention_norm=get(blk + "post_attention_norm.weight", width),
            ffn_norm=get(blk + "ffn_norm.weight", width),
            ffn_gate=get(blk + "ffn_gate.weight", width, hidden),
            ffn_up=get(blk + "ffn_up.weight", width, hidden),
            ffn_down=get(blk + "ffn_down.weight", hidden, width),
            post_ffw_norm=get(blk + "post_ffw_norm.weight", width),
        )


def gemma3_config(metadata: Mapping[str, Any]) -> Config:
    """Gemma 3's hyperparameters. Raises FormatError."""
    keys, config = Keys(metadata), read_config(metadata)
    window = keys.integer("attention.sliding_window", 0)
    return replace(
        config,
        attention_sliding_window=window,
        windowed=_windowed_layers(keys, config.block_count) if window else (),
        rope_freq_base_swa=keys.real("rope.freq_base_swa", 10000.0),
        final_logit_softcapping=keys.real("final_logit_softcapping", 0.0),
    )


def _windowed_layers(keys: Keys, block_count: int) -> tuple[bool, ...]:
    """Which layers look back only over the window: all but every n-th, or as the file lists."""
    pattern = keys.raw("attention.sliding_window_pattern")
    if pattern is None:
        pattern = 6
    if isinstance(pattern, int):
        return tuple(pattern == 0 or i % pattern < pattern - 1 for i in range(block_count))
    return tuple(bool(pattern[i]) for i in range(block_count))


def _query_scale(config: Config) -> float:
    if config.block_count == LAYERS_OF_27B:
        return 1.0 / math.sqrt(config.embedding_length // config.attention_head_count)
    return 1.0 / math.sqrt(config.attention_key_length)
