"""Several models in one graph, each with weights, caches and inputs of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from . import llama
from .builder import Builder
from .workload import Entry

#: Methods of Graph and Store that take a name -> which argument it is.
_NAMED = {"input": 0, "array": 0, "raw": 0, "zeros": 0, "placeholder": 0, "output": 1}


class _Part:
    """A graph or store in which everything gets a name of its own."""

    def __init__(self, whole: Any, prefix: str) -> None:
        self._whole, self._prefix = whole, prefix

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._whole, attribute)
        return self._named(found, _NAMED[attribute]) if attribute in _NAMED else found

    def _named(self, method: Callable[..., Any], place: int) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            if "name" in more:
                more["name"] = self._prefix + more["name"]
            else:
                given = list(arguments)
                given[place] = self._prefix + given[place]
                arguments = tuple(given)
            return method(*arguments, **more)

        return call


def several(b: Builder, parameters: Mapping[str, Any]) -> None:
    """`count` models of the same `metadata`, with other weights each, that know nothing of one
    another.
    """
    for i in range(parameters["count"]):
        prefix = f"model{i}."
        part = copy.copy(b)
        part.g, part.store = _Part(b.g, prefix), _Part(b.store, prefix)  # type: ignore[assignment]
        part.seed = b.seed + i
        part.feeds = {}
        llama.model(part, parameters["metadata"])
        b.feeds.update({prefix + name: values for name, values in part.feeds.items()})


def _four(name: str, about: str, like: str, n_past: int = 511, n_tokens: int = 1) -> Entry:
    one = next(entry for entry in llama.ENTRIES if entry.name == like)
    parameters = {"count": 4, "metadata": one.parameters}
    return Entry(name, about, several, parameters, one.dtype, n_tokens, n_past)


ENTRIES = [
    _four("llama-0.4b-x4", "four of llama-0.4b that compute at once", "llama-0.4b"),
    _four("llama-x4-tiny", "for tests", "llama-tiny", 7, 2),
]
