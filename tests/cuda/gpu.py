"""A real GPU in place of the simulated CUDA, for run_zoo.py and run_changes.py.

    python tests/cuda/run_changes.py gpu:FOLDER CASE

FOLDER is tests/cuda in a build. Calls of ours to the driver are counted, and fail where a test says
so (failing_calls.c, which is preloaded: the program starts itself once more for that); results are
compared with the serial run's on the same device. What only a simulation tells is not looked at:
races, what is left over, failures of ggml's own calls. `as-gpu:FOLDER` is the same on the simulated
CUDA, to try this without a GPU.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

from run_zoo import Sim

import ggml_concurrent as ggc
from ggml_concurrent._native import _LIBRARIES, find_device, load_backends


def count_devices() -> int:
    """How many CUDA devices there are."""
    n = 0
    while True:
        try:
            find_device(f"cuda{n}")
        except ggc.DeviceError:
            return n
        n += 1


def preloaded(shim: Path) -> ctypes.CDLL:
    """What LD_PRELOAD has brought, after a new start of the program with it. Our library comes
    before Python loads it, for the package's own way (RTLD_DEEPBIND) keeps others' functions out.
    """
    process = ctypes.CDLL(None)
    if hasattr(process, "failing_fail"):
        return process
    if "LD_PRELOAD" in os.environ or not shim.is_file():
        sys.exit(f"{shim} cannot be preloaded")
    libraries = f"{shim}:{_LIBRARIES / 'libggml-concurrent.so'}"
    command = [sys.executable, *sys.argv]
    os.execve(sys.executable, command, {**os.environ, "LD_PRELOAD": libraries})  # noqa: S606
    raise AssertionError  # not reached


class Driver:
    """The functions of the driver; what is simulated of it cannot be set."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("cu"):
            return getattr(self._library, name)
        return lambda *_arguments: None


class Gpu(Sim):
    """The GPUs of this machine, or the simulated ones."""

    reference, is_simulated = "cuda0", False

    def __init__(self, folder: Path, simulated: bool) -> None:
        self._calls = preloaded(folder / "libfailing-calls.so")
        self._calls.failing_calls.restype = ctypes.c_uint64
        self._calls.failing_fail.restype = ctypes.c_bool
        if simulated:
            super().__init__(folder)
        self.driver = Driver()
        load_backends()
        self.n_devices = count_devices()
        if not self.n_devices:
            sys.exit("there is no CUDA device here, or ggml's CUDA backend is not built")

    def reset(self, seed: int = 0) -> None:
        del seed
        self._calls.failing_reset()

    def check_clean(self) -> None:
        pass

    def live(self) -> dict[str, int]:
        return {}

    def calls(self, function: str) -> int:
        return int(self._calls.failing_calls(function.encode()))

    def fail(self, function: str, n: int, error: int) -> None:
        assert self._calls.failing_fail(function.encode(), n, error), function
