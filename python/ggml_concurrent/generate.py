"""Greedy text generation with one model: prompt in batches, then token by token."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import TracebackType

import numpy as np

from .errors import Error
from .gguf import GGUF
from .graph import Graph
from .memory import Pool
from .models import Model, model_class, open_model
from .models.config import Keys
from .plan import Plan
from .runner import Runner, compute_serial
from .stepper import SETTLE_SECONDS, model_stepper, steady_ms
from .store import Store
from .tokenizer import Tokenizer

#: A prompt is evaluated in pieces of at most this many tokens, as llama.cpp does.
BATCH = 512


class Pass:
    """One graph of a model, made ready to run: n_tokens new tokens, n_kv cells read."""

    def __init__(
        self,
        model: Model,
        n_tokens: int,
        n_kv: int,
        streams: int,
        threads: int,
        always: bool,
        pool: Pool | None = None,
    ) -> None:
        self.n_tokens, self.n_kv = n_tokens, n_kv
        self._model = model
        with ExitStack() as stack:
            self.graph = stack.enter_context(Graph(size=_graph_size(model)))
            model.build(self.graph, n_tokens, n_kv)
            runner = Runner(self.graph, streams=streams, threads=threads, always=always, pool=pool)
            self.runner = stack.enter_context(runner)
            self._stack = stack.pop_all()

    def run(self, ids: list[int], first: int) -> np.ndarray:
        """Logits, shape (vocabulary,), of the last of `ids`, which go to cells first, ..."""
        self.feed(ids, first)
        self.runner.compute()
        return self.logits()

    def feed(self, ids: list[int], first: int) -> None:
        """Write the inputs for `ids` at cells first, first + 1, ..."""
        for name, array in self._model.feed(ids, first, self.n_kv).items():
            self.runner.set(name, array)

    def logits(self) -> np.ndarray:
        """What the last computation gave, shape (vocabulary,)."""
        return self.runner.get("logits").reshape(-1)

    def close(self) -> None:
        """Free the runner and the graph."""
        self._stack.close()


@dataclass
class Comparison:
    """The same decoding step computed serially and concurrently."""

    threads: int
    streams: int
    identical: bool = True  # did both give the same bits?
    serial_ms: list[float] = field(default_factory=list)
    concurrent_ms: list[float] = field(default_factory=list)

    @property
    def serial(self) -> float:
        """Median milliseconds."""
        return median(self.serial_ms)

    @property
    def concurrent(self) -> float:
        """Median milliseconds."""
        return median(self.concurrent_ms)


class Engine:
    """A GGUF model with its tokenizer, and one sequence of tokens in its cache.

    Opening reads the vocabulary only; `load` reads the weights. Used as a context manager; nothing
    of it may be used after `close`.

    streams: how many operations may run at the same time; 1 is serial.
    threads: in all, shared out among the streams.
    always: use the streams whether they pay or not.
    Raises FormatError for files that are no GGUF or hold a model that we have no graphs for.
    """

    def __init__(
        self, path: Path, *, streams: int = 2, threads: int = 2, always: bool = False
    ) -> None:
        self.path, self.streams, self.threads, self.always = Path(path), streams, threads, always
        with GGUF(self.path) as file:
            self._metadata = file.metadata
        model_class(self._metadata)  # refuses what we have no graphs for, before anything is read
        self.tokenizer = Tokenizer(self._metadata)
        self._stack = ExitStack()
        self._model: Model | None = None
        self._pool: Pool | None = None  # graphs with more cells come again and again
        self._decode: Pass | None = None
        self.position = 0  # tokens in the cache

    def load(self, cells: int) -> Model:
        """Load the weights, with a cache for `cells` tokens. Raises Error if they are too many."""
        context = Keys(self._metadata).integer("context_length")
        if cells > context:
            raise Error(
                f"{cells} tokens (prompt and text together) are more than the model's "
                f"context of {context}"
            )
        self.close()
        with ExitStack() as stack:
            pool = stack.enter_context(Pool())
            store = stack.enter_context(Store())
            model = open_model(store, self.path, self._metadata, cells)
            self._stack = stack.pop_all()
        self._model, self._pool = model, pool
        return model

    @property
    def model(self) -> Model:
        """The loaded model. Raises Error before `load`."""
        if self._model is None:
            raise Error("the model is not loaded: call load() first")
        return self._model

    def evaluate(self, ids: list[int]) -> np.ndarray:
        """Add `ids` to the sequence; logits, shape (vocabulary,), after the last of them."""
        if not ids:
            raise Error("nothing to evaluate: the prompt has no tokens")
        if self.position + len(ids) > self.model.cache.cells:
            raise Error(
                f"the cache holds {self.model.cache.cells} tokens, "
                f"{self.position + len(ids)} were given"
            )
        for start in range(0, len(ids), BATCH):
            logits = self._evaluate_batch(ids[start : start + BATCH])
        return logits

    def reset(self) -> None:
        """Start a new sequence. Cells beyond the position are never looked at."""
        self.position = 0

    def generate(self, ids: list[int], max_tokens: int) -> Iterator[int]:
        """Greedy continuation of the prompt `ids`: up to max_tokens ids, an end token last."""
        logits = self.evaluate(ids)
        for count in range(1, max_tokens + 1):
            token = int(np.argmax(logits))
            yield token
            if token in self.tokenizer.ends or count == max_tokens:
                return
            logits = self.evaluate([token])

    @property
    def decode_pass(self) -> Pass:
        """The decoding graph for the cells that the next token reads."""
        n_kv = self.model.n_kv(self.position + 1)
        if self._decode is None or self._decode.n_kv != n_kv:
            if self._decode is not None:
                self._decode.close()
                self._decode = None
            self._decode = self._pass(1, n_kv)
        return self._decode

    @property
    def decode_plan(self) -> Plan:
        """The plan of `decode_pass`."""
        return self.decode_pass.runner.plan

    def compare(self, token: int, *, seconds: float = 1.0, at_least: int = 5) -> Comparison:
        """Time the step that would decode `token` next, in turns with the same step done serially.

        The serial one runs in a process of its own (stepper.py says why). Then its bits are
        compared here, plain ggml against the plan. The sequence does not advance: every run
        writes the same cell again.
        """
        step = self.decode_pass
        step.feed([token], self.position)
        step.runner.settle()
        step.runner.compute()
        result = Comparison(self.threads, self.streams)
        end = time.perf_counter() + seconds
        with model_stepper(
            self.path, streams=1, threads=self.threads, position=self.position
        ) as serial:
            while len(result.serial_ms) < at_least or time.perf_counter() < end:
                result.serial_ms.append(serial.step())
                time.sleep(SETTLE_SECONDS)
                result.concurrent_ms.append(steady_ms(step.runner.compute))
        concurrent = step.logits().tobytes()
        compute_serial(step.graph, self.threads)
        result.identical = step.logits().tobytes() == concurrent
        return result

    def close(self) -> None:
        """Free everything; may be called again."""
        if self._decode is not None:
            self._decode.close()
            self._decode = None
        self._model = self._pool = None
        self.position = 0
        self._stack.close()

    def __enter__(self) -> Engine:  # noqa: PYI034  typing.Self needs Python 3.11
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _pass(self, n_tokens: int, n_kv: int) -> Pass:
        return Pass(self.model, n_tokens, n_kv, self.streams, self.threads, self.always, self._pool)

    def _evaluate_batch(self, ids: list[int]) -> np.ndarray:
        if len(ids) == 1:
            logits = self.decode_pass.run(ids, self.position)
        else:
            n_kv = self.model.n_kv(self.position + len(ids))
            step = self._pass(len(ids), n_kv)
            try:
                logits = step.run(ids, self.position)
            finally:
                step.close()
        self.position += len(ids)
        return logits


def _graph_size(model: Model) -> int:
    """Nodes and leaves that a graph of the model may have; a layer has fewer than 64 nodes."""
    return 64 * (model.config.block_count + 2)
