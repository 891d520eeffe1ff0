"""What decoder-only models of the zoo share: inputs, cache, attention, the end of the graph.

The order of operations is llama.cpp's.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..models.base import Inputs
from ..models.cache import KVCache, causal_mask, padded
from ..models.config import Config
from ..models.layers import attention
from ..tensor import Tensor
from .builder import Builder


class Decoder:
    """Inputs and key/value cache of one graph that adds tokens to a text.

    Attributes:
        tokens: i32, ne (n_tokens).
        positions: i32, ne (n_tokens).
        mask: ne (n_kv, n_tokens), f32, or f16 for flash attention.
        last: i32, ne (1): the token whose logits are wanted.

    layers: those with attention; all by default.
    """

    def __init__(
        self, b: Builder, config: Config, n_vocab: int, layers: Iterable[int] | None = None
    ) -> None:
        self.b, self.config, self.n_vocab = b, config, n_vocab
        n_kv = padded(b.n_past + b.n_tokens)
        self.cache = KVCache(b.cache, config, n_kv, flash_attn=b.flash_attn, layers=layers)
        self._inputs = Inputs(b.g, self.cache, b.n_tokens, n_kv)
        self.tokens, self.positions = self._inputs.tokens, self._inputs.positions
        self.mask, self.last = self._inputs.mask, self._inputs.last
        feed_tokens(b, self.cache, n_vocab)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Stores k and v, attends with q: ne (heads * value length, tokens).

        q, k, v: ne (length, heads, tokens), rotated where the model does that.
        """
        mask = self._inputs.mask_of(self.config.is_windowed(layer))
        return attention(self.b.g, self.cache, layer, (q, k, v), self._inputs.rows, mask, scale)

    def is_last(self, layer: int) -> bool:
        """Whether only the last token's activations are of use from this layer's middle on."""
        return layer == self.config.block_count - 1

    def take_last(self, layer: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The last token's column of each, in the last layer; the tensors themselves before it."""
        if not self.is_last(layer):
            return tensors
        return tuple(self.b.g.get_rows(tensor, self.last) for tensor in tensors)


def feed_tokens(b: Builder, cache: KVCache, n_vocab: int) -> None:
    """Gives the inputs of `Inputs` contents: random tokens after n_past others."""
    n, first, config = b.n_tokens, b.n_past, cache.config
    b.feeds["tokens"] = b.rng("tokens").integers(n_vocab, size=n, dtype=np.int32)
    b.feeds["positions"] = first + np.arange(n, dtype=np.int32)
    b.feeds["last"] = np.array([n - 1], np.int32)
    b.feeds["mask"] = causal_mask(first, n, cache.cells)
    if any(config.windowed):
        window = config.attention_sliding_window
        b.feeds["mask_window"] = causal_mask(first, n, cache.cells, window)
    b.feeds.update(cache.rows(first, n))
