"""Makes another package's ggml, llama-cpp-python's above all, compute concurrently: `attach`."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cffi

from ._native import _LIBRARIES
from .errors import DeviceError

__all__ = ["Attachment", "Device", "Host", "attach", "attachment", "detach", "plugin_path"]

# Packages with a ggml of their own, by what is imported.
RUNNERS = ("llama_cpp", "libggml")

_DECLARATIONS = """
int ggc_dropin_attach(uint32_t * n, char * message, size_t message_size);
int ggc_dropin_attach_backend(void * backend, char * message, size_t message_size);
void ggc_dropin_detach(void);
size_t ggc_dropin_report(char * text, size_t size);
"""
_OK, _INVALID = 0, 1


@dataclass(frozen=True)
class LastPlan:
    """The plan that was made last; all 0 before there is one."""

    nodes: int
    units: int
    phases: int  # in memory of our own
    phases_theirs: int  # as the runner's allocator laid it out; 0 but with GGML_CONCURRENT=always
    streams: int
    own_bytes: int  # memory of our own, while the graph is computed


@dataclass(frozen=True)
class Device:
    """A device of a runner's ggml, and what has become of its graphs."""

    name: str
    description: str
    hooked: bool
    backends: int  # that were made since
    live: int
    graphs: int  # computed by them
    on_streams: int  # of these, by us
    plans: int  # made, and proven race-free
    failures: int  # of ours, after which the runner's own way was taken
    own_us: int  # microseconds of the host's: to look at new graphs, and to make them ready
    reason: str  # why graphs go through as they are; "" if they need not
    warning: str  # the last failure
    last_plan: LastPlan


@dataclass(frozen=True)
class Host:
    """A ggml in this process."""

    path: str
    version: str
    ours: bool  # a copy that ggml-concurrent brought along; never held by `attach()`
    held: bool
    reason: str  # why it cannot be held
    devices: tuple[Device, ...]


@dataclass(frozen=True)
class Attachment:
    """What `attach` has found; as text, one line that says so."""

    held: bool
    message: str
    hosts: tuple[Host, ...]

    def __str__(self) -> str:
        return self.message


def plugin_path() -> Path:
    """The drop-in library: for `GGML_BACKEND_PATH`, and for `LD_PRELOAD`.

    Raises DeviceError where there is none: it is for Linux.
    """
    path = _LIBRARIES / "libggml-concurrent-dropin.so"
    if not path.exists():
        raise DeviceError(f"the drop-in is for Linux only so far; there is no {path}")
    return path


def _device(fields: dict[str, Any]) -> Device:
    return Device(**{**fields, "last_plan": LastPlan(**fields["last_plan"])})


class _Library:
    """The drop-in library, loaded when it is first asked for, and the import hook."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.hook: _Finder | None = None
        self._ffi: Any = None
        self._lib: Any = None

    def load(self) -> tuple[Any, Any]:
        with self.lock:
            if self._lib is None:
                self._ffi = cffi.FFI()
                self._ffi.cdef(_DECLARATIONS)
                self._lib = self._ffi.dlopen(str(plugin_path()))
            return self._ffi, self._lib

    def hosts(self) -> tuple[Host, ...]:
        ffi, lib = self.load()
        size = 1 << 14
        while True:
            text = ffi.new("char[]", size)
            length = int(lib.ggc_dropin_report(text, size))
            if length < size:
                break
            size = 2 * length
        report = json.loads(ffi.string(text).decode("utf-8", "replace"))
        return tuple(
            Host(**{**host, "devices": tuple(map(_device, host["devices"]))})
            for host in report["hosts"]
        )

    def attach(self) -> tuple[bool, str]:
        ffi, lib = self.load()
        message = ffi.new("char[]", 2048)
        n = ffi.new("uint32_t *")
        status = lib.ggc_dropin_attach(n, message, 2048)
        return status == _OK, ffi.string(message).decode("utf-8", "replace")


_library = _Library()


def attach(backend: int | None = None, *, quiet: bool = False) -> Attachment:
    """Let the ggml of other packages in this process compute its graphs concurrently.

    Call it before models are loaded: contexts that exist already stay as they are.  Where no other
    ggml is loaded yet, it takes hold as soon as `llama_cpp` is imported.  Calling it again does no
    harm, and finds what has been loaded since.

    Each graph is computed as before until it has come back a few times; then ways on several
    streams are timed on the runner's own computations, all with the same bits, and the fastest is
    kept, and remembered on disk.  Environment variables: see docs/dropin.md.

    Arguments:
        backend: the address of one `ggml_backend` to take hold of instead, for code that makes its
            own; nothing may be computed on it meanwhile.
        quiet: do not say on standard error what happened.

    Raises:
        DeviceError: there is no drop-in for this system, or `backend` cannot be taken hold of.
        ValueError: `backend` is no backend of any ggml in this process.
    """
    with _library.lock:
        if backend is not None:
            return _attach_backend(backend, quiet=quiet)
        was_held = any(host.held for host in _library.hosts())
        held, message = _library.attach()
        before = 0 if was_held or not held else _contexts()
        if before:
            message += f"; contexts that exist already stay as they are: {before}"
        hosts = _library.hosts()
        if all(host.ours for host in hosts) and not _loaded():
            if _library.hook is None:
                _library.hook = _Finder(quiet=quiet)
                sys.meta_path.insert(0, _library.hook)
            message = f"waiting for {' or '.join(RUNNERS)} to be imported"
        if not quiet:
            print(f"ggml-concurrent: {message}", file=sys.stderr)  # noqa: T201  asked for
        return Attachment(held, message, hosts)


def _attach_backend(backend: int, *, quiet: bool) -> Attachment:
    ffi, lib = _library.load()
    message = ffi.new("char[]", 2048)
    status = lib.ggc_dropin_attach_backend(ffi.cast("void *", backend), message, 2048)
    text = ffi.string(message).decode("utf-8", "replace")
    if status == _INVALID:
        raise ValueError(f"attach: {text}")
    if status != _OK:
        raise DeviceError(f"attach: {text}")
    text = f"the backend at {backend:#x} is run concurrently"
    if not quiet:
        print(f"ggml-concurrent: {text}", file=sys.stderr)  # noqa: T201  asked for
    return Attachment(True, text, _library.hosts())


def detach() -> None:
    """Put everything back: contexts that live go on as without us, and imports are not watched.

    Waits for graphs that are being computed.
    """
    with _library.lock:
        if _library.hook is not None:
            sys.meta_path.remove(_library.hook)
            _library.hook = None
        _, lib = _library.load()
    lib.ggc_dropin_detach()


def attachment() -> Attachment:
    """What is held at the moment, and what became of the graphs so far."""
    hosts = _library.hosts()
    held = any(host.held for host in hosts)
    lines = [
        f"ggml {host.version} on {device.name}: {device.on_streams} of {device.graphs} graphs "
        f"on streams, {device.plans} plans, {device.failures} failures"
        + (f" ({device.reason})" if device.reason else "")
        for host in hosts
        for device in host.devices
    ]
    return Attachment(held, "; ".join(lines) or "nothing is held", hosts)


def _loaded() -> list[str]:
    return [name for name in RUNNERS if name in sys.modules]


def _contexts() -> int:
    """How many contexts of llama-cpp-python there are."""
    internals = sys.modules.get("llama_cpp._internals")
    kind = getattr(internals, "LlamaContext", None)
    if kind is None:
        return 0
    import gc

    return sum(type(thing) is kind for thing in gc.get_objects())


#
# Waiting for an import
#


class _Loader(importlib.abc.Loader):
    """Runs a module as its own loader does, then attaches."""

    def __init__(self, loader: Any, *, quiet: bool) -> None:
        self.loader = loader
        self.quiet = quiet

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self.loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        if _library.hook is not None:
            attach(quiet=self.quiet)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the runners' packages as all others do, and gives them a loader of ours."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self._finding = threading.local()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002  whoever really finds it gets these again
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in RUNNERS or getattr(self._finding, "on", False):
            return None
        self._finding.on = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._finding.on = False
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader, quiet=self.quiet)
        return spec
