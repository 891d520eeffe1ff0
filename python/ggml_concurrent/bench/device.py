"""The device that is measured on: what it is, how fast it copies, and what a fair race needs."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from .._native import ffi, find_device, ggml
from ..errors import DeviceError, Error
from ..graph import Graph
from ..info import device_features
from ..runner import Runner
from ..store import Store
from . import machine, traffic
from .burst import burst_for, mean_ms
from .candidates import DEVICES, GRAPH_OPT, kind_of

_DRIVER = Path("/proc/driver/nvidia/version")
_NO_GRAPHS = "GGML_CUDA_DISABLE_GRAPHS"

# Of each half of what is copied: several times the caches of any GPU.
_COPIED = 512 << 20
_COPIES = 8  # in one graph, so that its launch counts little
_TRIALS = 5


def check(name: str, *, without_cuda_graphs: bool = False) -> None:
    """Raises DeviceError where there is no such device, Error where plain ggml would look bad."""
    if kind_of(name) not in DEVICES:
        raise DeviceError(f"the bench measures on {' and '.join(DEVICES)} only, not on {name!r}")
    find_device(name)
    if kind_of(name) != "cuda" or without_cuda_graphs:
        return
    why = (
        "plain ggml then launches its kernels one by one and looks several times slower than to "
        "those who use it with CUDA graphs"
    )
    all_the_same = "or compare all the same with --without-cuda-graphs"
    if "USE_GRAPHS" not in device_features(name):
        raise Error(
            f"ggml's CUDA backend was built without CUDA graphs: {why}; build it with "
            f"GGML_CUDA_GRAPHS=ON, {all_the_same}"
        )
    if _NO_GRAPHS in os.environ:
        raise Error(f"{_NO_GRAPHS} is set: {why}; unset it, {all_the_same}")


def describe(name: str) -> dict[str, str]:
    """What machine.describe() does not tell, for a reader; nothing for the CPU."""
    if kind_of(name) == "cpu":
        return {}
    text = ffi.string(ggml.ggml_backend_dev_description(find_device(name)))
    variables = sorted({key for key in os.environ if key.startswith("GGML_CUDA_")} - {GRAPH_OPT})
    return {
        "device": text.decode("utf-8", "replace"),
        "driver": _driver() or "unknown",
        "device features": " ".join(device_features(name)),
        "variables": " ".join(f"{key}={os.environ[key]}" for key in variables),
    }


def _driver() -> str | None:
    """The version of NVIDIA's kernel module, where there is one."""
    try:
        found = re.search(r"\b\d+\.\d+(\.\d+)*\b", _DRIVER.read_text(encoding="utf-8"))
    except OSError:
        return None
    return found[0] if found else None


def free_memory(name: str) -> int | None:
    """Bytes that can be allocated for weights; None where the system does not tell."""
    if kind_of(name) == "cpu":
        return machine.available_memory()
    sizes = ffi.new("size_t[2]")
    ggml.ggml_backend_dev_memory(find_device(name), sizes, sizes + 1)
    return int(sizes[0])


def memory_bytes(name: str) -> int:
    """How many bytes are copied to tell how fast memory is."""
    if kind_of(name) == "cpu":
        return traffic.memory_bytes()
    return min(2 * _COPIED, (free_memory(name) or 0) // 4)


def copy_gb_per_s(name: str, nbytes: int, threads: int) -> float:
    """How fast one half of `nbytes` is copied to the other, by that many threads of a CPU.

    Bytes read and bytes written both count, as STREAM's copy does; the best of a few trials.
    """
    if kind_of(name) == "cpu":
        return traffic.copy_gb_per_s(nbytes, threads)
    n = max(16, min(nbytes, memory_bytes(name)) // 8)  # f32 values in one half
    values = np.random.default_rng(0).integers(2**31, size=n, dtype=np.int32)
    with Store(name) as store, Graph() as graph:
        source = store.raw("source", "f32", n, values)
        target = store.zeros("target", "f32", n)
        for i in range(_COPIES):
            graph.output(graph.cpy(source, target), f"copy {i}")
        with Runner(graph, device=name, streams=1) as runner:
            burst = burst_for(runner.compute)
            ms = min(mean_ms(runner.compute, burst) for _ in range(_TRIALS))
    return 8 * n * _COPIES / ms / 1e6
