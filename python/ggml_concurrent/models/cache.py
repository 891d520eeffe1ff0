"""The key/value cache: one cell per token, written by the graph, read by the attention after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .config import Config

if TYPE_CHECKING:
    from ..graph import Graph
    from ..tensor import Tensor

NewTensor = Callable[[str, str, Sequence[int]], "Tensor"]

#: The cache is read in steps of this many cells, so that one graph serves as many tokens.
CELL_STEP = 256


def padded(cells: int) -> int:
    """The smallest multiple of CELL_STEP that holds `cells`."""
    return -(-max(cells, 1) // CELL_STEP) * CELL_STEP


class KVCache:
    """Keys and values of every layer, f16, in a store that outlives the graphs.

    Keys lie token by token. Values lie transposed, element by element (a row per element, a column
    per token), so that the product with the attention weights reads them in order; a token's values
    are therefore written as `value_width` rows of one element each. With flash attention, which
    reads them otherwise, values lie as keys do.

    new: makes a tensor of a name, type and ne that outlives the graphs, like `Store.zeros`.
    cells: how many tokens fit, rounded up to a multiple of CELL_STEP.
    flash_attn: whether the attention over this cache is one operation, FLASH_ATTN_EXT.
    layers: those with attention; all by default.
    """

    def __init__(
        self,
        new: NewTensor,
        config: Config,
        cells: int,
        *,
        flash_attn: bool = False,
        layers: Iterable[int] | None = None,
    ) -> None:
        self.config = config
        self.flash_attn = flash_attn
        self.cells = padded(cells)
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        for i in range(config.block_count) if layers is None else layers:
            self.keys[i] = new(f"cache_k_l{i}", "f16", ne=(config.key_width, self.cells))
            self.values[i] = new(f"cache_v_l{i}", "f16", ne=(config.value_width, self.cells))

    def row_inputs(self, g: Graph, n_tokens: int) -> tuple[Tensor, Tensor]:
        """Graph inputs that say where the new tokens go: `key_rows` and `value_rows`."""
        per_token = 1 if self.flash_attn else self.config.value_width
        key_rows = g.input("key_rows", "i64", ne=(n_tokens,))
        value_rows = g.input("value_rows", "i64", ne=(n_tokens * per_token,))
        return key_rows, value_rows

    def mask_input(self, g: Graph, name: str, n_tokens: int, n_kv: int) -> Tensor:
        """Graph input for an attention mask over the first n_kv cells, ne (n_kv, n_tokens)."""
        return g.input(name, "f16" if self.flash_attn else "f32", ne=(n_kv, n_tokens))

    def rows(self, first: int, n_tokens: int) -> dict[str, np.ndarray]:
        """Contents of those inputs for tokens at cells first, first + 1, ..."""
        cells = np.arange(first, first + n_tokens, dtype=np.int64)
        if self.flash_attn:
            return {"key_rows": cells, "value_rows": cells}
        elements = np.arange(self.config.value_width, dtype=np.int64) * self.cells
        return {"key_rows": cells, "value_rows": (cells[:, None] + elements).reshape(-1)}

    def write(
        self, g: Graph, layer: int, k: Tensor, v: Tensor, key_rows: Tensor, value_rows: Tensor
    ) -> None:
        """Store k and v, ne (length, heads, tokens), and expand the graph with both writes."""
        n_tokens = k.ne[2]
        k = g.view_2d(k, self.config.key_width, n_tokens, nb1=k.nb[2], offset=0)
        g.expand(g.set_rows(self.keys[layer], k, key_rows))
        width = self.config.value_width
        if self.flash_attn:
            v = g.view_2d(v, width, n_tokens, nb1=v.nb[2], offset=0)
            g.expand(g.set_rows(self.values[layer], v, value_rows))
            return
        rows = g.reshape_2d if v.nb[2] == v.nb[0] * width else g.cont_2d
        v = g.reshape_2d(rows(v, width, n_tokens), 1, width * n_tokens)
        cache = g.reshape_2d(self.values[layer], 1, width * self.cells)
        g.expand(g.set_rows(cache, v, value_rows))

    def read_keys(self, g: Graph, layer: int, n_kv: int) -> Tensor:
        """The first n_kv cells' keys, ne (key length, n_kv, heads)."""
        length = self.config.attention_key_length
        return self._read_tokens(g, self.keys[layer], length, n_kv)

    def read_values(self, g: Graph, layer: int, n_kv: int) -> Tensor:
        """The first n_kv cells' values: ne (n_kv, value length, heads).

        With flash attention ne (value length, n_kv, heads).
        """
        config, cache = self.config, self.values[layer]
        if self.flash_attn:
            return self._read_tokens(g, cache, config.attention_value_length, n_kv)
        item = cache.nb[0]
        view = g.view_4d(
            cache,
            n_kv,
            config.attention_head_count_kv,
            config.attention_value_length,
            1,
            nb1=item * self.cells * config.attention_value_length,
            nb2=item * self.cells,
            nb3=item * self.cells * config.value_width,
            offset=0,
        )
        return g.permute(view, 0, 2, 1, 3)

    def _read_tokens(self, g: Graph, cache: Tensor, length: int, n_kv: int) -> Tensor:
        """The first n_kv tokens of a cache that lies token by token, ne (length, n_kv, heads)."""
        heads = self.config.attention_head_count_kv
        nb1, nb2 = cache.nb[0] * length, cache.nb[1]
        view = g.view_4d(
            cache, length, heads, n_kv, 1, nb1=nb1, nb2=nb2, nb3=nb2 * self.cells, offset=0
        )
        return g.permute(view, 0, 2, 1, 3)

    def nbytes(self, n_kv: int) -> int:
        """Bytes that the attention of all layers reads when it looks at n_kv cells."""
        per_cell = self.config.key_width + self.config.value_width
        return 2 * per_cell * n_kv * self.config.block_count


def causal_mask(first: int, n_tokens: int, n_kv: int, window: int = 0) -> np.ndarray:
    """Attention mask, shape (n_tokens, n_kv): 0 where a token may look, -inf elsewhere.

    Token i stands at cell first + i and sees the cells up to its own; with a window only the last
    `window` of them, its own included.
    """
    distance = np.arange(first, first + n_tokens)[:, None] - np.arange(n_kv)[None, :]
    seen = distance >= 0
    if window:
        seen &= distance < window
    return np.where(seen, np.float32(0), np.float32(-np.inf)).astype(np.float32)
