"""One step of a runner without waiting in between: copies and the computation, in order."""

from __future__ import annotations

from typing import Any

from ._native import lib, message_of, raise_status

__all__ = ["Transfers"]


class Transfers:
    """What is asked of a runner and not waited for yet.

    ``put`` and ``get`` can be called as ggml_backend_tensor_set and ggml_backend_tensor_get.  The
    memory that they are given is kept until ``wait`` has returned, which has to be called, also
    after an error.
    """

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._kept: list[Any] = []

    def _check(self, status: int, what: str) -> None:
        raise_status(status, message_of(lib.ggc_runner_message(self._runner)), what)

    def put(self, tensor: Any, source: Any, offset: int, size: int) -> None:
        """Copies to a tensor."""
        self._kept.append(source)
        self._check(lib.ggc_runner_set_async(self._runner, tensor, source, offset, size), "set")

    def get(self, tensor: Any, target: Any, offset: int, size: int) -> None:
        """Copies from a tensor; `target` has the bytes once ``wait`` has returned."""
        self._kept.append(target)
        self._check(lib.ggc_runner_get_async(self._runner, tensor, target, offset, size), "get")

    def compute(self) -> None:
        """Computes the graph; what fails is told by ``wait``."""
        lib.ggc_runner_compute_async(self._runner)

    def wait(self) -> None:
        """Waits until all is done.

        Raises:
            DeviceError: the computation failed.
        """
        status = lib.ggc_runner_synchronize(self._runner)
        self._kept.clear()
        self._check(status, "compute")
