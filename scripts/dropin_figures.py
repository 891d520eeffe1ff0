#!/usr/bin/env python3
"""Measure llama-cpp-python with and without the drop-in, and what the drop-in itself costs.

  scripts/test                                   # builds llama-cpp-python into build/runner
  .venv/bin/python scripts/dropin_figures.py [--rounds N] [--model FILE.gguf]
  .venv/bin/python scripts/dropin_figures.py --plans

Three ways take turns, each time in a process of its own: plain, held but switched off
(GGML_CONCURRENT=off), and held as by default, tuned before (the first round is not counted). Ratios
first, then medians and the distance between quartiles. Then the nanoseconds that a graph takes
longer through the drop-in, on a graph of 32 operations on one number each.

--plans: what one token's graph is of each model of the tests: nodes, units, phases on the memory
that llama.cpp's allocator gave out and on memory of our own, and how much that is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUNNER = Path(os.environ.get("GGC_RUNNER_DIR") or ROOT / "build" / "runner")
WAYS = {"plain": None, "off": "off", "default": "auto"}
PROMPTS, PROMPT, TOKENS = 5, 256, 96
BLOCKS = 40


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", type=Path, help="default: Gemma 3 270M of the extra [model]")
    parser.add_argument("--plans", action="store_true", help="no times: what plans there are")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds: at least 2, for the spread")
    if not (RUNNER / "llama_cpp").is_dir():
        sys.exit(
            f"llama-cpp-python is not in {RUNNER}: run scripts/test, or name its folder in "
            "GGC_RUNNER_DIR"
        )
    if options.worker == "overhead":
        return overhead()
    if options.worker:
        return work(options)
    if options.plans:
        return show_plans()
    compare(options)
    run(options, "overhead", "auto")
    return 0


def run(options: argparse.Namespace, worker: str, mode: str | None, cache: str = "") -> dict:
    from ggml_concurrent.models.package import package_model

    environment = {**os.environ, "GGML_CONCURRENT_CACHE": cache, "GGML_CONCURRENT_QUIET": "1"}
    if mode is not None:
        environment["GGML_CONCURRENT"] = mode
    program = [sys.executable, __file__, "--worker", worker, "--threads", str(options.threads)]
    program += ["--model", str(options.model or package_model())]
    result = subprocess.run(program, check=False, capture_output=True, text=True, env=environment)
    if result.returncode:
        sys.exit(result.stderr[-3000:])
    if worker == "overhead":
        print(result.stdout, end="")
        return {}
    return json.loads(result.stdout.splitlines()[-1])


def compare(options: argparse.Namespace) -> None:
    times: dict[str, list[dict]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as cache:
        for i in range(options.rounds + 1):
            for way, mode in WAYS.items():
                found = run(options, way, mode, cache)
                if i > 0:
                    times[way].append(found)
    hashes = {found["logits"] for way in WAYS for found in times[way]}
    print("logits: the same bits" if len(hashes) == 1 else "LOGITS DIFFER")
    print("| | first prompt | prompt | token | first ms | prompt ms | token ms | spread |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    keys = ("first", "prompt", "token")
    base = {key: median(times["plain"], key) for key in keys}
    for way, found in times.items():
        taken = {key: median(found, key) for key in keys}
        low, _, high = statistics.quantiles([f["token"] for f in found], n=4)
        ratios = " | ".join(f"{base[key] / taken[key]:.3f}x" for key in keys)
        numbers = " | ".join(f"{taken[key]:.2f}" for key in keys)
        spread = 100 * (high - low) / taken["token"]
        print(f"| {way} | {ratios} | {numbers} | {spread:.1f} % |")
    last = times["default"][-1]["device"]
    print(f"default: {last['on_streams']} of {last['graphs']} graphs on streams")


def median(found: list[dict], key: str) -> float:
    return statistics.median(f[key] for f in found)


def work(options: argparse.Namespace) -> int:
    """Evaluates prompts, then tokens; prints milliseconds and a hash of all logits."""
    import numpy as np

    sys.path.append(str(RUNNER))
    import llama_cpp

    import ggml_concurrent as ggc

    if options.worker != "plain":
        ggc.attach()
    llama = llama_cpp.Llama(
        str(options.model),
        n_ctx=1024,
        n_threads=options.threads,
        n_threads_batch=options.threads,
        verbose=False,
    )
    digest = hashlib.sha256()

    def evaluate(tokens: list[int]) -> tuple[float, int]:
        start = time.perf_counter()
        llama.eval(tokens)
        pointer = llama_cpp.llama_get_logits_ith(llama._ctx.ctx, -1)
        logits = np.ctypeslib.as_array(pointer, shape=(llama.n_vocab(),))
        took = 1e3 * (time.perf_counter() - start)
        digest.update(logits.tobytes())
        return took, int(logits.argmax())

    prompt_ms, token_ms, token = [], [], 0
    for k in range(PROMPTS):
        llama.reset()
        took, token = evaluate([2, *(100 + (37 + k) * i % 5000 for i in range(PROMPT - 1))])
        prompt_ms.append(took)
    for _ in range(TOKENS):
        took, token = evaluate([token])
        token_ms.append(took)
    devices = [d for host in ggc.attachment().hosts if not host.ours for d in host.devices]
    device = {"graphs": devices[0].graphs, "on_streams": devices[0].on_streams} if devices else {}
    print(
        json.dumps(
            {
                "prompt": statistics.median(prompt_ms),
                "first": prompt_ms[0],
                "token": statistics.median(token_ms),
                "logits": digest.hexdigest(),
                "device": device,
            }
        )
    )
    return 0


def show_plans() -> int:
    """Of a token's graph, the last that each model computes."""
    sys.path.insert(0, str(ROOT / "tests" / "python"))
    from test_dropin_llama import ADAPTED, OTHERS, TINY, Request, model_of

    from ggml_concurrent.models.package import package_model

    print("| model | nodes | units | phases, theirs | phases, ours | own memory, KiB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        gemma = {"name": "gemma3-270m", "path": str(package_model()), "cases": ["short_prompts"]}
        models = [model_of(n, Path(folder), ["short_prompts"]) for n in (TINY, *OTHERS, *ADAPTED)]
        for model in (gemma, *models):
            (device,) = Request(RUNNER, [model]).run(held=True)["devices"]
            last = device["last_plan"]
            print(
                f"| {model['name']} | {last['nodes']} | {last['units']} | {last['phases_theirs']} "
                f"| {last['phases']} | {last['own_bytes'] / 1024:.0f} |"
            )
    return 0


#
# What passing through costs
#


class Tiny:
    """32 operations on one number each, through the scheduler of the runner's own ggml."""

    def __init__(self, library: str) -> None:
        import ctypes

        self.ggml = ctypes.CDLL(library)  # what it is linked with is found, too
        self.pointer = pointer = ctypes.c_void_p
        self.function = ctypes.CFUNCTYPE(None, pointer, ctypes.c_int)

        class Params(ctypes.Structure):
            _fields_ = (("size", ctypes.c_size_t), ("buffer", pointer), ("no_alloc", ctypes.c_bool))

        device = self.call("ggml_backend_dev_by_type", 0)
        self.registry = self.call("ggml_backend_dev_backend_reg", device)
        self.backend = self.call("ggml_backend_dev_init", device, None)
        context = self.call("ggml_init", Params(1 << 20, None, True))
        tensor = self.call("ggml_new_tensor_1d", context, 0, ctypes.c_int64(1))
        self.call("ggml_set_input", tensor)
        for _ in range(32):
            tensor = self.call("ggml_scale", context, tensor, ctypes.c_float(1.0))
        self.call("ggml_set_output", tensor)
        graph = self.call("ggml_new_graph", context)
        self.call("ggml_build_forward_expand", graph, tensor)
        backends = (pointer * 1)(self.backend)
        size = ctypes.c_size_t(2048)
        sched = self.call("ggml_backend_sched_new", backends, None, 1, size, False, False)
        self.call("ggml_backend_sched_alloc_graph", sched, graph)
        self.arguments = sched, graph

    def call(self, name: str, *arguments: object) -> Any:
        function = getattr(self.ggml, name)
        function.restype = self.pointer
        return self.pointer(function(*arguments))

    def setter(self) -> Callable[[int], None]:
        """The function by which the number of threads is set."""
        name = b"ggml_backend_set_n_threads"
        address = self.call("ggml_backend_reg_get_proc_address", self.registry, name)
        function = self.function(address.value)
        return lambda n: function(self.backend, n)

    def time(self, n: int = 4000) -> float:
        """Nanoseconds a graph."""
        compute, arguments = self.ggml.ggml_backend_sched_graph_compute, self.arguments
        start = time.perf_counter()
        for _ in range(n):
            compute(*arguments)
        return 1e9 * (time.perf_counter() - start) / n


def overhead() -> int:
    """Nanoseconds a graph, blocks with and without the drop-in in turns."""
    sys.path.append(str(RUNNER))
    import llama_cpp

    import ggml_concurrent as ggc

    ggc.attach(quiet=True)
    assert llama_cpp
    tiny = Tiny(next(host.path for host in ggc.attachment().hosts if not host.ours))
    extra, without = [], []
    while len(extra) < BLOCKS:
        ggc.detach()
        theirs = tiny.setter()
        theirs(1)
        tiny.time(100)
        without.append(tiny.time())
        ggc.attach(tiny.backend.value, quiet=True)
        tiny.setter()(2)  # with one thread there would be nothing to look for,
        theirs(1)  # but it is one that computes
        tiny.time(100)
        extra.append(tiny.time() - without[-1])
        ggc.detach()
    low, middle, high = statistics.quantiles(extra, n=4)
    print(
        f"through the drop-in a graph takes {middle:.0f} ns longer (quartiles {low:.0f} and "
        f"{high:.0f}), {statistics.median(without):.0f} ns without"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
