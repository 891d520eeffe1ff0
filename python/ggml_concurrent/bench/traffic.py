"""Bytes: how many a graph reads of its weights and caches, and how many a machine can copy."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from .._native import ffi, ggml
from ..dtypes import BY_ID
from ..store import Store
from ..tensor import Tensor
from ..zoo import Workload
from . import machine

#
# What a graph reads
#

# Nodes that compute nothing.
NO_WORK = frozenset({"NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE"})

# Operation -> sources that are not read: they only say where the result lies, or how large it is.
_NOT_READ = {
    "CPY": {1},
    "SET_ROWS": {2},
    "IM2COL": {0},
    "IM2COL_3D": {0},
    "IM2COL_BACK": {1},
    "FILL": {0},
}

# Operation -> source of which only some rows or matrices are read, the source that numbers them,
# and the dimension that is numbered.
_CHOSEN = {"GET_ROWS": (0, 1, 1), "MUL_MAT_ID": (0, 2, 2), "ADD_ID": (1, 2, 1)}


class _Read(NamedTuple):
    """Bytes begin .. end of a root tensor, of which a share is read."""

    begin: int
    end: int
    nbytes: float


def bytes_read(workload: Workload) -> int:
    """Bytes of weights and caches that one computation reads, each counted once.

    Of a view only what it shows counts, of GET_ROWS the rows that its input asks for, of MUL_MAT_ID
    at most one matrix for each number in its table of chosen ones, since these are computed.
    """
    reads: dict[int, set[_Read]] = {}
    for node in workload.graph.nodes:
        op = node.op
        if op in NO_WORK:
            continue
        for i, source in enumerate(node.src):
            root = source.view_src or source
            if isinstance(root._owner, Store) and i not in _NOT_READ.get(op, ()):
                share = _share(workload, node, i)
                reads.setdefault(root._address, set()).add(_read(source, share))
    return round(sum(_once(regions) for regions in reads.values()))


def _read(tensor: Tensor, share: float) -> _Read:
    struct = tensor._ptr
    begin = int(struct.view_offs)
    ne, kind = tensor.ne, BY_ID[struct.type]
    shown = kind.row_bytes(ne[0]) * ne[1] * ne[2] * ne[3]
    return _Read(begin, begin + tensor.nbytes, min(shown, tensor.nbytes) * share)


def _share(workload: Workload, node: Tensor, i: int) -> float:
    """Which part of a source is read."""
    chosen = _CHOSEN.get(node.op)
    if chosen is None or chosen[0] != i:
        return 1.0
    _, numbers_at, dimension = chosen
    sources = node.src
    n, numbers = sources[i].ne[dimension], sources[numbers_at]
    known = workload.feeds.get(numbers.name) if numbers.op == "NONE" else None
    used = np.prod(numbers.ne) if known is None else np.unique(known).size
    return min(int(used), n) / n


def _once(regions: Iterable[_Read]) -> float:
    """Bytes that regions of one tensor hold together, those of several counted once."""
    total, begin, end, shown = 0.0, 0, 0, 0.0  # of regions that overlap: from, to, their bytes
    for region in sorted(regions):
        if region.begin >= end:
            total += min(end - begin, shown)
            begin, end, shown = region.begin, region.begin, 0.0
        end = max(end, region.end)
        shown += region.nbytes
    return total + min(end - begin, shown)


def raw_bytes(tensor: Tensor) -> np.ndarray:
    """A copy of the bytes of a store's tensor."""
    data = np.empty(tensor.nbytes, np.uint8)
    target: Any = ffi.from_buffer("uint8_t *", data, require_writable=True)
    ggml.ggml_backend_tensor_get(tensor._ptr, target, 0, data.nbytes)
    return data


#
# What a machine copies
#

_TRIALS = 5
_TRIAL_SECONDS = 0.01


def memory_bytes() -> int:
    """A size much larger than the caches, as far as a quarter of the free memory allows."""
    wanted = max(256 << 20, 4 * machine.largest_cache())
    free = machine.available_memory()
    return wanted if free is None else max(64 << 20, min(wanted, free // 4))


def copy_gb_per_s(nbytes: int, threads: int) -> float:
    """How fast `threads` threads copy one half of `nbytes` to the other, each its own part.

    Bytes read and bytes written both count, as STREAM's copy does; the best of a few trials.
    """
    part = max(64, nbytes // 2 // threads)
    start = threading.Barrier(threads)
    spans: list[list[float]] = [[] for _ in range(threads)]  # of each thread and trial, seconds

    def work(mine: list[float]) -> None:
        source, target = np.ones(part, np.uint8), np.zeros(part, np.uint8)
        times = _times_to_copy(source, target)
        for _ in range(_TRIALS):
            start.wait()
            begin = time.perf_counter()
            for _ in range(times):
                np.copyto(target, source)
            mine.append((time.perf_counter() - begin) / times)

    _in_threads([lambda mine=mine: work(mine) for mine in spans])
    slowest = (max(span[i] for span in spans) for i in range(_TRIALS))
    return 2 * part * threads / min(slowest) / 1e9


def _times_to_copy(source: np.ndarray, target: np.ndarray) -> int:
    """Copies that take long enough to be timed together; the first warms up."""
    np.copyto(target, source)
    begin = time.perf_counter()
    np.copyto(target, source)
    return max(1, round(_TRIAL_SECONDS / max(time.perf_counter() - begin, 1e-7)))


def _in_threads(calls: list[Any]) -> None:
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
