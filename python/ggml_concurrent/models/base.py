"""What the supported architectures have in common: inputs, the loop over layers, the output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .cache import KVCache, NewTensor, causal_mask, padded
from .config import Config
from .layers import norm
from .weights import Source

if TYPE_CHECKING:
    from ..graph import Graph
    from ..tensor import Tensor


class Inputs:
    """The tensors of one graph that the host fills before each run."""

    def __init__(self, g: Graph, cache: KVCache, n_tokens: int, n_kv: int) -> None:
        self.tokens = g.input("tokens", "i32", ne=(n_tokens,))
        self.positions = g.input("positions", "i32", ne=(n_tokens,))
        self.rows = cache.row_inputs(g, n_tokens)
        self.mask = cache.mask_input(g, "mask", n_tokens, n_kv)
        self.mask_window: Tensor | None = None
        if any(cache.config.windowed):
            self.mask_window = cache.mask_input(g, "mask_window", n_tokens, n_kv)
        self.last = g.input("last", "i32", ne=(1,))

    def mask_of(self, windowed: bool) -> Tensor:
        """The mask for a layer that looks back only over its window, or over everything."""
        if windowed and self.mask_window is not None:
            return self.mask_window
        return self.mask


class Model(ABC):
    """A decoder-only transformer: weights, cache, and the graphs that compute with them.

    Weights and cache live in stores, which the caller owns and closes after the graphs.

    metadata: GGUF's key/value pairs. weights: where the tensors come from. new: makes the cache's
    tensors, like `Store.zeros`. cells: how many tokens the cache holds, prompt and generated text
    together. flash_attn: whether attention is one operation.
    Raises FormatError when a tensor is missing or its shape does not fit the metadata.
    """

    architecture: ClassVar[str]

    def __init__(
        self,
        config: Config,
        weights: Source,
        new: NewTensor,
        cells: int,
        *,
        flash_attn: bool = False,
    ) -> None:
        self.config = config
        self.weights = weights
        self.cache = KVCache(new, config, cells, flash_attn=flash_attn)
        width = config.embedding_length
        self.n_vocab = self.weights.embedding.ne[1]
        self.weights.get("token_embd.weight", width, self.n_vocab)
        self.output_norm = self.weights.get("output_norm.weight", width)

    @abstractmethod
    def layer(self, g: Graph, index: int, x: Tensor, inputs: Inputs) -> Tensor:
        """Layer `index` applied to x, ne (width, tokens)."""

    def embed(self, g: Graph, tokens: Tensor) -> Tensor:
        """Activations of the tokens, ne (width, tokens)."""
        return g.get_rows(self.weights.embedding, tokens)

    def logits(self, g: Graph, x: Tensor) -> Tensor:
        """Logits, ne (vocabulary, tokens), of normalised activations."""
        return g.mul_mat(self.weights.output, x)

    def build(self, g: Graph, n_tokens: int, n_kv: int) -> None:
        """Put into `g` the graph that adds n_tokens tokens to the cache.

        It reads the first n_kv cells, a multiple of the cache's step that includes the new tokens,
        and gives the output `logits`, shape (1, vocabulary), of the last token. The same graph
        serves every position: only the inputs' contents (`feed`) change.
        """
        inputs = Inputs(g, self.cache, n_tokens, n_kv)
        x = self.embed(g, inputs.tokens)
        g.expand(x)
        for index in range(self.config.block_count):
            x = self.layer(g, index, x, inputs)
        x = norm(g, x, self.output_norm, self.config.attention_layer_norm_rms_epsilon)
        g.output(self.logits(g, x), name="logits")

    def feed(self, ids: list[int], first: int, n_kv: int) -> dict[str, np.ndarray]:
        """Contents of a graph's inputs for tokens `ids` at positions first, first + 1, ..."""
        n_tokens = len(ids)
        arrays = {
            "tokens": np.asarray(ids, dtype=np.int32),
            "positions": np.arange(first, first + n_tokens, dtype=np.int32),
            "mask": causal_mask(first, n_tokens, n_kv),
            "last": np.asarray([n_tokens - 1], dtype=np.int32),
            **self.cache.rows(first, n_tokens),
        }
        if any(self.config.windowed):
            window = self.config.attention_sliding_window
            arrays["mask_window"] = causal_mask(first, n_tokens, n_kv, window)
        return arrays

    def n_kv(self, used: int) -> int:
        """Cells that a graph must read when `used` of them hold tokens."""
        return min(padded(used), self.cache.cells)

    def nbytes_per_token(self, n_kv: int) -> int:
        """Bytes of weights and cache that one decoding step reads."""
        return self.weights.nbytes_per_token() + self.cache.nbytes(n_kv)

    def is_last(self, index: int) -> bool:
        """Whether layer `index` is the last, which goes on with the last token alone."""
        return index == self.config.block_count - 1
