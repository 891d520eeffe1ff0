"""States that recurrent layers carry from token to token, for one sequence.

A state is one row of a cache tensor.  llama.cpp has a row for each sequence and copies those that a
batch needs by their numbers; with one sequence there is one row, of number 0.
"""

from __future__ import annotations

from ..tensor import Tensor
from .builder import Builder


class States:
    """Reads and replaces the states of one graph.

    Attributes:
        ids: i32, ne (1): the row of the sequence.
    """

    def __init__(self, b: Builder) -> None:
        self.b = b
        self.ids = b.g.view_1d(b.input("state_rows", "i32", [0]), 1, offset=0)

    def cache(self, name: str, size: int) -> Tensor:
        """Memory for one state of `size` numbers, f32, ne (size, 1)."""
        return self.b.cache(name, "f32", (size, 1))

    def rows(self, cache: Tensor) -> Tensor:
        """The rows of a cache, made zero where a sequence begins: ne (size, 1)."""
        g, size = self.b.g, cache.ne[0]
        rows = g.reshape_2d(cache, size, 1)
        if self.b.n_past == 0:
            g.expand(g.scale_inplace(g.view_1d(rows, size, offset=0), 0.0))
        return rows

    def read(self, cache: Tensor) -> Tensor:
        """A copy of the sequence's state, ne (size, 1)."""
        return self.b.g.expand(self.b.g.get_rows(self.rows(cache), self.ids))

    def write(self, cache: Tensor, state: Tensor) -> None:
        """Replaces the sequence's state by a tensor of as many elements."""
        target = self.b.g.view_1d(cache, cache.ne[0], offset=0)
        self.b.g.expand(self.b.g.cpy(state, target))


def shift_in(states: States, cache: Tensor, before: Tensor, x: Tensor) -> Tensor:
    """The tokens of x after the last ones before them: ne (kernel - 1 + tokens, channels, 1).

    before: ne (kernel - 1, channels, 1), the state in `cache`, which gets the last of x instead.
    x: ne (channels, tokens, 1).
    """
    g, (n, channels) = states.b.g, before.ne[:2]
    both = g.concat(before, g.transpose(x), dim=0)
    offset = x.ne[1] * both.nb[0]
    last = g.view_3d(both, n, channels, 1, nb1=both.nb[1], nb2=both.nb[2], offset=offset)
    states.write(cache, last)
    return both
