"""A program with a ggml of its own, driven through its C API: the package libggml-python's.

    python dropin_host.py WAY

Computes a graph of several branches through ggml's scheduler a few times, as llama.cpp does, and
prints JSON: a hash of the results, and what the drop-in says. WAY: `plain`; `attach`
(ggml_concurrent); `bare` (the drop-in library alone, through ctypes); `backend` (a backend made
directly, held by its address); `load` (ggml loads the backends that GGML_BACKEND_PATH names);
`preload` (everything that matters is called by the library GGC_CALLER, which is linked with the
ggml, as libllama is), `preload-cpu` (the same with the CPU backend's own function for threads);
`import` (attached before a package named llama_cpp loads the ggml); `detach` (held, then let go);
`other` (other inputs, without us).
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

N, BRANCHES, DEPTH = 64, 6, 4
TIMES = int(os.environ.get("TIMES", "4"))
F32 = 0
pointer = ctypes.c_void_p


class Params(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("buffer", pointer), ("no_alloc", ctypes.c_bool))


def library_folder() -> Path:
    """Of the package libggml-python, or of the ggml that GGC_HOST names."""
    if "GGC_HOST" in os.environ:
        return Path(os.environ["GGC_HOST"])
    spec = importlib.util.find_spec("libggml")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    return next(p for p in (folder / "lib64", folder / "lib") if p.is_dir())


class Host:
    """The functions of a ggml, and a graph."""

    def __init__(self) -> None:
        folder = library_folder()
        for name in ("ggml-base", "ggml-cpu"):
            ctypes.CDLL(str(folder / f"lib{name}.so.0"))
        self.ggml = ctypes.CDLL(str(folder / "libggml.so.0"))  # the others' are found as well
        self.caller: Any = None
        if "GGC_CALLER" in os.environ:
            self.caller = ctypes.CDLL(os.environ["GGC_CALLER"])
            self.caller.caller_init.restype = self.caller.caller_sched.restype = pointer
            self.caller.caller_threads.restype = None

    def call(self, name: str, *arguments: Any) -> Any:
        function = getattr(self.ggml, name)
        function.restype = pointer
        return pointer(function(*arguments))

    def build(self, seed: int) -> None:
        import numpy as np

        rng = np.random.default_rng(seed)
        self.context = self.call("ggml_init", Params(1 << 22, None, True))
        self.weights: list[tuple[Any, Any]] = []
        x = self.matrix(rng, 1)
        self.call("ggml_set_input", x)
        total = None
        for _ in range(BRANCHES):
            y = x
            for _ in range(DEPTH):
                y = self.call("ggml_mul_mat", self.context, self.matrix(rng, N), y)
                y = self.call("ggml_silu", self.context, y)
            total = y if total is None else self.call("ggml_add", self.context, total, y)
        self.call("ggml_set_output", total)
        self.result = total
        self.graph = self.call("ggml_new_graph", self.context)
        self.call("ggml_build_forward_expand", self.graph, total)

    def matrix(self, rng: Any, rows: int) -> Any:
        tensor = self.call(
            "ggml_new_tensor_2d", self.context, F32, ctypes.c_int64(N), ctypes.c_int64(rows)
        )
        self.weights.append((tensor, rng.standard_normal((rows, N), "f4")))
        return tensor

    def device(self) -> Any:
        return self.call("ggml_backend_dev_by_type", 0)

    def new_backend(self, *, direct: bool = False) -> None:
        if direct:
            self.backend = self.call("ggml_backend_cpu_init")
        elif self.caller is not None:
            self.backend = pointer(self.caller.caller_init())
        else:
            self.backend = self.call("ggml_backend_dev_init", self.device(), None)

    def set_threads(self, n: int) -> None:
        registry = self.call("ggml_backend_dev_backend_reg", self.device())
        name = b"ggml_backend_set_n_threads"
        address = self.call("ggml_backend_reg_get_proc_address", registry, name)
        ctypes.CFUNCTYPE(None, pointer, ctypes.c_int)(address.value)(self.backend, n)

    def schedule(self) -> None:

        backends = (pointer * 1)(self.backend)
        size = ctypes.c_size_t(2048)
        if self.caller is not None:
            self.sched = pointer(self.caller.caller_sched(backends, 1))
        else:
            make = "ggml_backend_sched_new"
            self.sched = self.call(make, backends, None, 1, size, False, False)
        for tensor, _ in self.weights:
            self.call("ggml_set_input", tensor)  # keeps its memory
        assert self.call("ggml_backend_sched_alloc_graph", self.sched, self.graph).value

    def compute(self) -> str:
        import numpy as np

        digest = hashlib.sha256()
        for _ in range(TIMES):
            for tensor, values in self.weights:
                size = ctypes.c_size_t(values.nbytes)
                data = values.ctypes.data_as(pointer)
                self.call("ggml_backend_tensor_set", tensor, data, ctypes.c_size_t(0), size)
            function = self.ggml.ggml_backend_sched_graph_compute
            assert function(self.sched, self.graph) == 0
            out = np.empty(N, "f4")
            data, size = out.ctypes.data_as(pointer), ctypes.c_size_t(out.nbytes)
            self.call("ggml_backend_tensor_get", self.result, data, ctypes.c_size_t(0), size)
            assert np.isfinite(out).all()
            digest.update(out.tobytes())
        return digest.hexdigest()

    def free(self) -> None:
        for name, thing in (
            ("ggml_backend_sched_free", self.sched),
            ("ggml_backend_free", self.backend),
            ("ggml_free", self.context),
        ):
            function = getattr(self.ggml, name)
            function.restype = None
            function(thing)


def bare_library() -> Any:
    return ctypes.CDLL(os.environ["GGC_DROPIN"])


def bare_report() -> dict:
    text = ctypes.create_string_buffer(1 << 16)
    bare_library().ggc_dropin_report(text, ctypes.c_size_t(1 << 16))
    return json.loads(text.value)


def attach(way: str) -> str:
    if way == "attach":
        import ggml_concurrent

        return str(ggml_concurrent.attach(quiet=True))
    if way == "bare":
        n, message = ctypes.c_uint32(), ctypes.create_string_buffer(2048)
        bare_library().ggc_dropin_attach(ctypes.byref(n), message, ctypes.c_size_t(2048))
        return message.value.decode()
    return ""


def main(way: str) -> int:
    before = ""
    if way == "import":
        import ggml_concurrent

        before = str(ggml_concurrent.attach(quiet=True))
        host = importlib.import_module("llama_cpp").load()
    else:
        host = Host()
    if way == "load":
        host.ggml.ggml_backend_load_all()
    message = attach("attach" if way == "detach" else way)
    host.build(2 if way == "other" else 1)
    host.new_backend(direct=way == "backend")
    if way == "backend":
        import ggml_concurrent

        message = str(ggml_concurrent.attach(host.backend.value, quiet=True))
    if way == "preload-cpu":
        host.caller.caller_threads(host.backend, 2)
    else:
        host.set_threads(2)
    host.schedule()
    if way == "detach":
        import ggml_concurrent

        held = host.compute()
        ggml_concurrent.detach()
    digest = host.compute()
    if way == "detach":
        assert held == digest
    result = {"digest": digest, "message": message, "before": before}
    if "GGC_DROPIN" in os.environ and way not in ("plain", "other"):
        result["hosts"] = [h for h in bare_report()["hosts"] if not h["ours"]]
    host.free()
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
