"""Tiny graphs of the zoo that llama.cpp builds as well, and how they are told to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ggml_concurrent import zoo

TARGET = Path(__file__).parent / "data" / "graphs"


def _no_adapters(folder: Path) -> list[str]:
    return []


@dataclass(frozen=True)
class Case:
    """A graph to compare.

    passes: (n_past, n_tokens) of the graphs compared.
    metadata: what llama.cpp's loader wants besides the graph's parameters.
    differences: an operation of llama.cpp's list that ours lacks, or the other way round -> why.
    """

    passes: tuple[tuple[int, int], ...] = ((0, 5), (7, 1))
    metadata: Mapping[str, Any] = field(default_factory=dict)
    flash_attn: bool = False
    embeddings: bool = False
    differences: Mapping[str, str] = field(default_factory=dict)
    write_adapters: Callable[[Path], list[str]] = _no_adapters


CASES = {
    "llama-tiny": Case(),
    "gemma3-tiny": Case(),
}


def gguf_metadata(entry: zoo.Entry) -> dict[str, Any]:
    """The graph's parameters with what a file needs besides; it has no vocabulary."""
    return {
        "general.name": entry.name,
        "tokenizer.ggml.model": "no_vocab",
        **entry.parameters,
        **CASES[entry.name].metadata,
    }


def gguf_tensors(workload: zoo.Workload) -> dict[str, np.ndarray]:
    """The weights under their names; caches and copies are none."""
    return {
        name: tensor.numpy().reshape(_shape(tensor.ne))
        for name, tensor in workload.store.tensors.items()
        if not name.startswith("cache_") and not name.endswith(" (output)")
    }


def _shape(ne: tuple[int, ...]) -> tuple[int, ...]:
    n = max((i for i in range(4) if ne[i] > 1), default=0) + 1
    return tuple(reversed(ne[:n]))


def tokens_of(name: str, n_past: int, n_tokens: int) -> dict[str, list[int]]:
    """Tokens before those of the graph, and the graph's own."""
    with zoo.build(name, n_past=n_past, n_tokens=n_tokens) as workload:
        tokens = workload.feeds["tokens"].tolist()
    return {"past": list(range(1, n_past + 1)), "tokens": tokens}
