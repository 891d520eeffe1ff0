"""Facts about this installation: what `ggml-concurrent info` prints."""

from __future__ import annotations

import ctypes
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from ._native import ffi, find_device, ggml, lib, load_backends


def version() -> str:
    """Version of the installed package; "unknown" when it runs from a source folder."""
    try:
        return metadata.version("ggml-concurrent")
    except metadata.PackageNotFoundError:
        return "unknown"


def information() -> dict[str, str | list[str]]:
    """Versions, the CPU module that was chosen for this machine, and what it makes use of.

    Raises DeviceError when the CPU backend cannot be loaded.
    """
    load_backends()
    device = ggml.ggml_backend_dev_by_type(lib.GGML_BACKEND_DEVICE_TYPE_CPU)
    registry = ggml.ggml_backend_dev_backend_reg(device)
    function = ggml.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_get_features")
    address = int(ffi.cast("uintptr_t", function))
    return {
        "version": version(),
        "ggml": f"{_text(ggml.ggml_version())} ({_text(ggml.ggml_commit())})",
        "cpu module": _module_at(address),
        "cpu features": _features(address, int(ffi.cast("uintptr_t", registry))),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
    }


def device_features(name: str) -> list[str]:
    """What the backend of a device was built with, in ggml's words: "USE_GRAPHS".

    Raises DeviceError when there is no such device.
    """
    registry = ggml.ggml_backend_dev_backend_reg(find_device(name))
    function = ggml.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_get_features")
    return _features(int(ffi.cast("uintptr_t", function)), int(ffi.cast("uintptr_t", registry)))


class _Feature(ctypes.Structure):
    """ggml's struct ggml_backend_feature."""

    _fields_ = (("name", ctypes.c_char_p), ("value", ctypes.c_char_p))


def _features(address: int, registry: int) -> list[str]:
    """What a backend was compiled for, from its own function at `address`."""
    if address == 0:
        return []
    call = ctypes.CFUNCTYPE(ctypes.POINTER(_Feature), ctypes.c_void_p)(address)
    features, names = call(registry), []
    while features[len(names)].name:  # the list ends with an entry without a name
        names.append(features[len(names)].name.decode())
    return names


class _DlInfo(ctypes.Structure):
    """The C library's Dl_info."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def _module_at(address: int) -> str:
    """File name of the shared library that holds the code at `address`."""
    found = _DlInfo()
    dladdr = getattr(ctypes.CDLL(None), "dladdr", None)
    if dladdr is None or not dladdr(ctypes.c_void_p(address), ctypes.byref(found)):
        return "unknown"
    return Path(found.file.decode("utf-8", "replace")).name


def _text(pointer: Any) -> str:
    return str(ffi.string(pointer).decode("utf-8", "replace"))
