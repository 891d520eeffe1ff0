"""Graphs of architectures that people run, with realistic shapes and random weights.

`GRAPHS` lists them, `build` makes one:

    with zoo.build("falcon-7b", n_tokens=8) as workload, workload.runner() as runner:
        runner.compute()

Each architecture is a function that builds its graph as llama.cpp, whisper.cpp or
stable-diffusion.cpp does; what it takes are the parameters of the model's own file or config, under
their names there.  The entries named ...-tiny are for tests.
"""

from __future__ import annotations

from typing import Any

from ..dtypes import DTypeLike
from ..errors import Error
from . import (
    bert,
    codebooks,
    falcon_h1,
    llama,
    lora,
    mla,
    mmdit,
    moe,
    parallel,
    qwen3next,
    rwkv,
    several,
    towers,
    whisper,
)
from .workload import Entry, Workload

__all__ = ["GRAPHS", "Entry", "Workload", "build"]

_MODULES = (
    bert,
    codebooks,
    falcon_h1,
    llama,
    lora,
    mmdit,
    mla,
    moe,
    parallel,
    qwen3next,
    rwkv,
    several,
    towers,
    whisper,
)

#: Name -> graph.
GRAPHS: dict[str, Entry] = {entry.name: entry for m in _MODULES for entry in m.ENTRIES}


def build(
    name: str,
    *,
    dtype: DTypeLike | None = None,
    n_tokens: int | None = None,
    n_past: int | None = None,
    **options: Any,
) -> Workload:
    """The graph of that name with random weights; the caller closes it.

    Args:
        name: one of `GRAPHS`.
        dtype: type of the matrices; the entry's own by default.
        n_tokens: tokens computed at once; the entry's own by default.
        n_past: tokens in the caches before them; the entry's own by default.
        options: further arguments of `Builder`: seed, flash_attn, repack, zero_caches,
            device, weights.

    Raises:
        Error: there is no such graph.
    """
    entry = GRAPHS.get(name)
    if entry is None:
        raise Error(f"no graph {name!r} in the zoo; it has: {', '.join(sorted(GRAPHS))}")
    return entry.build(dtype=dtype, n_tokens=n_tokens, n_past=n_past, **options)
