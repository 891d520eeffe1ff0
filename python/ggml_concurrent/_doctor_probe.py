"""What the doctor lets another interpreter run with -c, which need not have this package.

list NAME...: packages that bring a ggml along, and of the modules named those that are there.
try PLUGIN CANDIDATE: imports one of these, takes hold of its ggml, and says what was found.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import platform
import re
import sys
from typing import Any

LIBRARY = re.compile(r"libggml(?!-concurrent)[\w.-]*\.so[\d.]*$")
REGISTRY = re.compile(r"(^|/)libggml(\.v[\d.]+)?\.so[\d.]*$")  # has the devices; needs the others


def modules_of(distribution: Any) -> list[str]:
    """What its users import."""
    names = (distribution.read_text("top_level.txt") or "").split()
    for file in distribution.files or ():
        if len(file.parts) == 2 and file.name == "__init__.py":
            names.append(file.parts[0])
    return sorted({name for name in names if name.isidentifier()})


def packages() -> list[dict[str, Any]]:
    """The distributions that ship a ggml."""
    try:
        from importlib.metadata import distributions
    except ImportError:  # Python 3.7
        return []
    found = {}
    for distribution in distributions():
        libraries = [
            str(distribution.locate_file(file))
            for file in distribution.files or ()
            if LIBRARY.match(file.name)
        ]
        name = distribution.metadata["Name"]
        if libraries and name not in found:
            found[name] = {
                "name": name,
                "version": distribution.version,
                "modules": modules_of(distribution),
                "libraries": sorted(libraries),
            }
    return sorted(found.values(), key=lambda candidate: candidate["name"])


def find(names: list[str]) -> dict[str, Any]:
    """These, and the modules that are there although no distribution says so."""
    candidates = packages()
    known = {module for candidate in candidates for module in candidate["modules"]}
    for name in names:
        if name not in known and importlib.util.find_spec(name) is not None:
            candidates.append({"name": name, "version": "", "modules": [name], "libraries": []})
    return {"python": platform.python_version(), "candidates": candidates}


def import_modules(candidate: dict[str, Any]) -> str:
    """Why one cannot be imported; "" if all can."""
    for name in candidate["modules"]:
        try:
            module = importlib.import_module(name)
        except BaseException as error:  # noqa: BLE001  whatever it is, it is told
            return f"{type(error).__name__}: {' '.join(str(error).split())}"
        candidate["version"] = candidate["version"] or str(getattr(module, "__version__", ""))
    return ""


def load_libraries(paths: list[str]) -> str:
    """Load what has the devices, and what that needs ahead of it; why that fails, or ""."""
    registries = [path for path in paths if REGISTRY.search(path)]
    reason = ""
    for _ in paths:
        for path in registries:
            try:
                ctypes.CDLL(path)
            except OSError as error:
                reason = str(error)
            else:
                return ""
        for path in paths:
            try:
                ctypes.CDLL(path)
            except OSError:
                continue
    return reason


def attach(drop_in: Any) -> list[dict[str, Any]]:
    """What is held, and what is left alone."""
    message, n = ctypes.create_string_buffer(2048), ctypes.c_uint32()
    drop_in.ggc_dropin_attach(ctypes.byref(n), message, ctypes.c_size_t(2048))
    text = ctypes.create_string_buffer(1 << 16)
    drop_in.ggc_dropin_report(text, ctypes.c_size_t(1 << 16))
    hosts = json.loads(text.value.decode("utf-8", "replace"))["hosts"]
    return [host for host in hosts if not host["ours"]]


def examine(plugin: str, candidate: dict[str, Any]) -> dict[str, Any]:
    """Import a package, if need be load its libraries, and take hold."""
    drop_in = ctypes.CDLL(plugin)
    error = import_modules(candidate)
    hosts = attach(drop_in)
    by_import = bool(hosts)
    if not hosts and not error:
        error = load_libraries(candidate["libraries"])
        hosts = attach(drop_in)
    return {
        "version": candidate["version"],
        "error": error,
        "hosts": hosts,
        "by_import": by_import,
    }


if __name__ == "__main__":
    if sys.argv[1] == "list":
        answer = find(sys.argv[2:])
    else:
        answer = examine(sys.argv[2], json.loads(sys.argv[3]))
    print("ggml-concurrent: " + json.dumps(answer), flush=True)
