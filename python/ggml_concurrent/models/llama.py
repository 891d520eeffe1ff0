"""Llama and the models that use its layout (Mistral, SmolLM, TinyLlama, ...), dense ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import FormatError
from .base import Inputs, Model
from .cache import NewTensor
from .config import Config, Keys, read_config
from .layers import ROPE_NORM, attention, linear, norm, rope, split_heads
from .weights import Source

if TYPE_CHECKING:
    from ..graph import Graph
    from ..tensor import Tensor


@dataclass(frozen=True)
class Linear:
    """A matrix and the bias that some files have beside it."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, g: Graph, x: Tensor) -> Tensor:
        """weight @ x + bias."""
        return linear(g, self.weight, x, self.bias)


@dataclass(frozen=True)
class Layer:
    """One layer's weights, named as in the file."""

    attn_norm: Tensor
    attn_q: Linear
    attn_k: Linear
    attn_v: Linear
    attn_output: Linear
    ffn_norm: Tensor
    ffn_gate: Linear
    ffn_up: Linear
    ffn_down: Linear


class Llama(Model):
    """The Llama architecture, without experts."""

    architecture = "llama"

    def __init__(
        self,
        metadata: Mapping[str, Any],
        weights: Source,
        new: NewTensor,
        cells: int,
        *,
        flash_attn: bool = False,
    ) -> None:
        super().__init__(llama_config(metadata), weights, new, cells, flash_attn=flash_attn)
        self.rope_freqs = self.weights.find(
            "rope_freqs.weight", self.config.rope_dimension_count // 2
        )
        self.layers = [self._load(i) for i in range(self.config.block_count)]

    def layer(self, g: Graph, index: int, x: Tensor, inputs: Inputs) -> Tensor:
        """Attention, then a SwiGLU feed-forward, each with a norm before it."""
        w, eps = self.layers[index], self.config.attention_layer_norm_rms_epsilon
        y = self._attend(g, index, norm(g, x, w.attn_norm, eps), inputs)
        if self.is_last(index):
            y, x = g.get_rows(y, inputs.last), g.get_rows(x, inputs.last)
        x = g.add(y, x)
        y = norm(g, x, w.ffn_norm, eps)
        up = w.ffn_up(g, y)
        return g.add(w.ffn_down(g, g.swiglu_split(w.ffn_gate(g, y), up)), x)

    def _attend(self, g: Graph, index: int, x: Tensor, inputs: Inputs) -> Tensor:
        config, w = self.config, self.layers[index]
        q = split_heads(g, w.attn_q(g, x), config.attention_key_length)
        k = split_heads(g, w.attn_k(g, x), config.attention_key_length)
        v = split_heads(g, w.attn_v(g, x), config.attention_value_length)
        q, k = self._rope(g, q, inputs.positions), self._rope(g, k, inputs.positions)
        scale = 1.0 / math.sqrt(config.attention_value_length)
        out = attention(g, self.cache, index, (q, k, v), inputs.rows, inputs.mask, scale)
        return w.attn_output(g, out)

    def _rope(self, g: Graph, x: Tensor, positions: Tensor) -> Tensor:
        c = self.config
        base, scale = c.rope_freq_base, c.rope_freq_scale
        return rope(g, x, positions, c, ROPE_NORM, base, scale, self.rope_freqs)

    def _load(self, index: int) -> Layer:
        c, blk = self.config, f"blk.{index}."
        width, hidden = c.embedding_length, c.feed_forward_length
        q_width = c.attention_key_length * c.attention_head_count
        out_width = c.attention_value_length * c.attention_head_count

        def matrix(name: str, n_in: int, n_out: int) -> Linear:
            weight = self.weights.get(f"{blk}{name}.weight", n_in, n_out)
            return Linear(weight, self.weights.find(f"{blk}{name}.bias", n_out))

        return Layer(
            attn_norm=self.weights.get(blk + "attn_norm.weight", width),
            attn_q=matrix("attn_q", width, q_width),
            attn_k=matrix("attn_k", width, c.key_width),
            attn_v=matrix("attn_v", width, c.value_width),
            attn_output=matrix("attn_output", out_width, width),
            ffn_norm=self.weights.get(blk + "ffn_norm.weight", width),
            ffn_gate=matrix("ffn_gate", width, hidden),
            ffn_up=matrix("ffn_up", width, hidden),
            ffn_down=matrix("ffn_down", hidden, width),
        )


def llama_config(metadata: Mapping[str, Any]) -> Config:
    """Llama's hyperparameters. Raises FormatError."""
    keys, config = Keys(metadata), read_config(metadata)
    if keys.integer("expert_count", 0):
        raise FormatError("Llama models with experts are not supported yet")
    if config.attention_key_length != config.attention_value_length:
        raise FormatError(
            f"keys of {config.attention_key_length} and values of "
            f"{config.attention_value_length} elements: expected the same"
        )
    return config
