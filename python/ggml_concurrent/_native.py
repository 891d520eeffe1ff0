"""The compiled part: loads it, calls ggml under guards, and owns C objects.

``lib`` and ``ffi`` are cffi's.  ``ggml`` has ggml's functions under their own names; a failed
assertion of ggml's is raised as GraphError.  C objects are held by `Handle`.
"""

from __future__ import annotations

import collections
import ctypes
import importlib
import os
import re
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

from .errors import ClosedError, DeviceError, GraphError, RaceError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "Closable",
    "Handle",
    "ffi",
    "ggml",
    "lib",
    "live_handles",
    "load_backends",
    "log_of",
    "message_of",
    "raise_status",
]


def _deepbind_works() -> bool:
    """RTLD_DEEPBIND exists in glibc; the address sanitizer's run-time refuses it."""
    return hasattr(os, "RTLD_DEEPBIND") and not hasattr(ctypes.CDLL(None), "__asan_init")


def _import_extension() -> ModuleType:
    """Imports ``_ffi``, its libraries bound to each other before anything else in the process.

    Another package may have loaded its own ggml with global symbols.  Without DEEPBIND our calls
    would go to that one, whose structs may be laid out differently.
    """
    if not _deepbind_works():
        return importlib.import_module("ggml_concurrent._ffi")
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_LOCAL | os.RTLD_DEEPBIND)
    try:
        return importlib.import_module("ggml_concurrent._ffi")
    finally:
        sys.setdlopenflags(flags)


try:
    _extension = _import_extension()
except ImportError as error:
    raise ImportError(
        f"the compiled part of ggml_concurrent is missing or cannot be loaded: {error}. "
        "Install the package ('pip install .' in a clone builds it); a source folder on "
        "sys.path is not enough."
    ) from error

ffi: Any = _extension.ffi
lib: Any = _extension.lib

# In an editable install the libraries stand beside the extension, not beside this file.
_LIBRARIES = Path(_extension.__file__ or "").parent / "lib"


def _guarded(name: str) -> Callable[..., Any]:
    function = getattr(lib, "guarded_" + name)
    message = lib.ggc_guard_message

    def call(*args: Any) -> Any:
        result = function(*args)
        text = message()
        if text[0] != b"\0":
            raise GraphError(_decode(text))
        return result

    call.__name__ = name
    return call


class _Ggml:
    """ggml's functions by name; a failed assertion raises GraphError with ggml's text."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        try:
            call = _guarded(name)
        except AttributeError:
            raise AttributeError(f"{name} is not bound: see scripts/generate_bindings.py") from None
        setattr(self, name, call)
        return call


ggml: Any = _Ggml()


def _decode(text: Any) -> str:
    return str(ffi.string(text).decode("utf-8", "replace"))


def message_of(buffer: Any) -> str:
    """Text of a char buffer that a C function filled in."""
    return _decode(buffer)


def log_of(call: Callable[[], Any]) -> tuple[Any, str]:
    """Result of a call, and what ggml warned of in its log meanwhile."""
    lib.log_begin()
    try:
        result = call()
    finally:
        text = _decode(lib.log_end())
    return result, " ".join(text.split())


_EXCEPTIONS: dict[int, type[Exception]] = {
    lib.GGC_E_INVALID: GraphError,
    lib.GGC_E_NOMEM: MemoryError,
    lib.GGC_E_CAPACITY: GraphError,
    lib.GGC_E_RACE: RaceError,
    lib.GGC_E_UNSUPPORTED: DeviceError,
    lib.GGC_E_DEVICE: DeviceError,
    lib.GGC_E_ABORTED: DeviceError,
    lib.GGC_E_ASSERT: GraphError,
}


def raise_status(status: int, message: str, what: str) -> None:
    """Raises the exception of a status that is not GGC_OK."""
    if status != lib.GGC_OK:
        text = message or _decode(lib.ggc_status_string(status))
        raise _EXCEPTIONS.get(status, DeviceError)(f"{what}: {text}")


#
# Backends
#


def load_backends() -> None:
    """Loads ggml's CPU backend, once per process. Raises DeviceError when it is not there."""
    message = ffi.new("char[]", 512)
    status = lib.ggc_load_backends(os.fsencode(_LIBRARIES), message, len(message))
    if status != lib.GGC_OK:
        raise DeviceError(
            f"no ggml backend could be loaded from {_LIBRARIES}: {message_of(message)}. "
            "Reinstall the package."
        )


DEVICES = {
    "cpu": lib.GGC_DEVICE_CPU,
    "cuda": lib.GGC_DEVICE_CUDA,
    "metal": lib.GGC_DEVICE_METAL,
}


def device_of(name: str) -> tuple[int, int]:
    """GGC_DEVICE_... and number of a device's name: "cuda1". Raises DeviceError for any other."""
    match = (
        re.fullmatch(r"(cpu|metal|cuda(?=\d))(\d{0,3})", name) if isinstance(name, str) else None
    )
    if match is None or (match[2] and match[1] != "cuda"):
        raise DeviceError(f"no device {name!r}; there are: 'cpu', 'metal', 'cuda0', 'cuda1', ...")
    return DEVICES[match[1]], int(match[2] or 0)


def find_device(name: str) -> Any:
    """ggml's device of a name. Raises DeviceError when this machine has none."""
    kind, index = device_of(name)
    load_backends()
    if name == "cpu":
        return ggml.ggml_backend_dev_by_type(lib.GGML_BACKEND_DEVICE_TYPE_CPU)
    found = ffi.new("struct ggml_backend_device **")
    message = ffi.new("char[]", 512)
    status = lib.ggc_find_device(kind, index, found, message, len(message))
    raise_status(status, message_of(message), name)
    if kind == lib.GGC_DEVICE_CUDA:
        lib.use_cuda()
    return found[0]


#
# Ownership
#

_live: collections.Counter[str] = collections.Counter()


def _release(kind: str, free: Callable[[Any], None], pointer: Any, keep: tuple[Any, ...]) -> None:
    free(pointer)
    _live[kind] -= 1
    del keep  # what the C object needed to the end may go now


class Handle:
    """Owns one C object: it is freed once, when the last reference to the handle goes.

    `keep` are objects that must outlive the C object.  `free` and `keep` must not refer to the
    handle, or it never goes.
    """

    __slots__ = ("__weakref__", "_finalizer", "pointer")

    def __init__(self, kind: str, pointer: Any, free: Callable[[Any], None], *keep: Any) -> None:
        self.pointer = pointer
        _live[kind] += 1
        self._finalizer = weakref.finalize(self, _release, kind, free, pointer, keep)


class Closable:
    """A context manager that closes itself at the end of the block."""

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends the use of the object; may be called again."""
        raise NotImplementedError

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError(f"this {type(self).__name__} is closed")

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def live_handles() -> dict[str, int]:
    """How many C objects of each kind exist: what a test for leaks counts."""
    return {kind: n for kind, n in _live.items() if n}
