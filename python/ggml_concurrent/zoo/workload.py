"""One graph of the zoo: how it is described, and what is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .._native import Closable
from ..dtypes import DTypeLike
from ..runner import Runner
from .builder import Builder

if TYPE_CHECKING:
    from ..graph import Graph
    from ..store import Store

#: Inputs that choose rows of an embedding.
_TOKENS = frozenset({"tokens", "audio_tokens", "embd"})
#: Operations that show the memory of another tensor and leave it as it is.
_LOOKS = frozenset({"VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE"})


@dataclass(frozen=True)
class Entry:
    """A graph of the zoo.

    Attributes:
        name: for `build` and the command line.
        about: one line for a reader.
        function: puts the graph into a Builder.
        parameters: what the function needs, under the names in the model's own file or config.
        dtype: type of the matrices.
        n_tokens: tokens computed at once.
        n_past: tokens in the caches before them.
        options: what the function takes besides.
    """

    name: str
    about: str
    function: Callable[..., None]
    parameters: Mapping[str, Any]
    dtype: str = "f16"
    n_tokens: int = 1
    n_past: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(
        self,
        *,
        dtype: DTypeLike | None = None,
        n_tokens: int | None = None,
        n_past: int | None = None,
        **options: Any,
    ) -> Workload:
        """The graph with random weights; see `zoo.build`."""
        b = Builder(
            dtype=self.dtype if dtype is None else dtype,
            n_tokens=self.n_tokens if n_tokens is None else n_tokens,
            n_past=self.n_past if n_past is None else n_past,
            **options,
        )
        try:
            self.function(b, self.parameters, **self.options)
        except BaseException:
            b.close()
            raise
        return Workload(self, b)


class Workload(Closable):
    """A built graph, its weights, and the contents of its inputs; a context manager.

    Attributes:
        entry: which graph of the zoo it is.
        graph: the graph.
        store: weights and caches.
        feeds: the contents of the graph's inputs, by name.
    """

    def __init__(self, entry: Entry, builder: Builder) -> None:
        self.entry = entry
        self.graph: Graph = builder.g
        self.store: Store = builder.store
        self.feeds: dict[str, np.ndarray] = builder.feeds

    def runner(self, **arguments: Any) -> Runner:
        """A Runner of the graph (its arguments), with all inputs set; the caller closes it."""
        runner = Runner(self.graph, **{"device": self.store.device, **arguments})
        try:
            self.feed(runner)
        except BaseException:
            runner.close()
            raise
        return runner

    def feed(self, runner: Runner) -> None:
        """Writes the inputs, those that the graph reads."""
        for name in runner.input_names:
            runner.set(name, self.feeds[name])

    def vary(self, runner: Runner, step: int) -> None:
        """Gives the runner other inputs, the same for equal steps: other tokens, and other numbers
        in inputs that are no masks. What was computed before is then wrong if it is read again.
        """
        random = np.random.default_rng(step)
        for name in runner.input_names:
            values = self.feeds[name]
            rows = runner.index_limits.get(name)
            is_tokens = name.rpartition(".")[2] in _TOKENS
            if is_tokens and rows:
                runner.set(name, random.integers(0, rows, values.shape, values.dtype))
            elif is_tokens or (values.dtype.kind == "f" and "mask" not in name):
                runner.set(name, random.permutation(values.ravel()).reshape(values.shape))

    def outputs(self, runner: Runner, step: int) -> dict[str, np.ndarray]:
        """The outputs by name of a computation on inputs as `vary` has them; copies of the caches
        where there are no outputs.
        """
        self.vary(runner, step)
        runner.compute()
        return {name: runner.get(name) for name in self.graph.outputs} or self.caches()

    def run(self, runner: Runner) -> dict[str, np.ndarray]:
        """Computes once: the outputs by name, and copies of the caches that the graph wrote to."""
        runner.compute()
        return {name: runner.get(name) for name in self.graph.outputs} | self.caches()

    def caches(self) -> dict[str, np.ndarray]:
        """Copies of the store's tensors that the graph writes to."""
        written = {n.view_src for n in self.graph.nodes if n.is_view and n.op not in _LOOKS}
        return {name: t.numpy() for name, t in self.store.tensors.items() if t in written}

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self.graph.closed

    def close(self) -> None:
        """Frees the graph and the weights; may be called again."""
        self.graph.close()
        self.store.close()
