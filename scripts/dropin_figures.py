#!/usr/bin/env python3
"""Measure llama-cpp-python with and without the drop-in, and what the drop-in itself costs.

  scripts/test                                   # builds llama-cpp-python into build/runner
  .venv/bin/python scripts/dropin_figures.py [MODEL...] [--rounds N] [--json FILE]
  .venv/bin/python scripts/dropin_figures.py --plans | --overhead

MODEL is a file, gemma3-270m (the default; the weights of the extra [model], if it is installed), or
a graph of the zoo that llama.cpp loads: then weights are random. GGC_RUNNER_DIR names the folder of
llama-cpp-python; with --gpu it is one built with CUDA (scripts/cuda dropin).

Each way of computing lives in a process of its own, and they take turns, another one first in each
round (with --alone one way has all its rounds before the next begins: on a GPU short prompts take a
tenth longer in some turns than in others): plain; plain-again, which tells what chance alone makes
of the ratios; graph-opt, with --gpu alone, plain with GGML_CUDA_GRAPH_OPT=1; default, with the
drop-in. Counted are a row of prompts, all in all, and each of them from the third on; and tokens of
1, 4 and 16 sequences, once ways are tuned. Told apart are new processes, the first token after a
prompt and the whole answer: `cold` ones know nothing, `known` ones what is fastest.
Ratios are first: above 1 is faster than plain.

--plans: what one token's graph is of each model of the tests: nodes, units, phases on the memory
that llama.cpp's allocator gave out and on memory of our own, and how much that is.
--overhead: nanoseconds that a graph of 32 operations on one number takes longer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ggml_concurrent.stepper import Conversation

ROOT = Path(__file__).resolve().parent.parent
RUNNER = Path(os.environ.get("GGC_RUNNER_DIR") or ROOT / "build" / "runner")
PROMPT, TOKENS, TUNING = 256, 48, 240
PROMPTS, TUNING_PROMPTS = 5, 80  # in a row, of which there is one a round; and before those counted
SETTLED = 2  # prompts of a row after which nothing is left to be made, by ggml either
SEQUENCES = (1, 4, 16)
BLOCKS = 40


@dataclass(frozen=True)
class Way:
    """A way of computing: whether the drop-in has hold of it, and the environment."""

    name: str
    held: bool = False
    environment: dict[str, str] = field(default_factory=dict)


PLAIN, AGAIN, DEFAULT = Way("plain"), Way("plain-again"), Way("default", held=True)
#: What a later process knows is to be found soon.
WARM = Way("default", held=True, environment={"GGML_CONCURRENT": "eager"})
GRAPH_OPT = Way("graph-opt", environment={"GGML_CUDA_GRAPH_OPT": "1"})


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", default=["gemma3-270m"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cold-rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of a sequence in a round")
    parser.add_argument("--tuning", type=int, default=TUNING, help="tokens before those counted")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--alone", action="store_true", help="one process after another, no turns")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all times, and what was chosen")
    parser.add_argument("--plans", action="store_true", help="no times: what plans there are")
    parser.add_argument("--overhead", action="store_true")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds: at least 2, for the spread")
    if options.cold_rounds < 1:
        parser.error("--cold-rounds: at least 1")
    if not (RUNNER / "llama_cpp").is_dir():
        sys.exit(
            f"llama-cpp-python is not in {RUNNER}: run scripts/test, or name its folder in "
            "GGC_RUNNER_DIR"
        )
    if options.plans:
        return show_plans()
    if options.overhead:
        return overhead()
    same = True
    results = []
    for number, name in enumerate(options.models):
        with model_files(name) as (path, adapters):
            result = compare(options, {"model": str(path), "adapters": adapters})
        results.append({"model": name, **result})
        print_result(results[-1], header=number == 0)
        same = same and results[-1]["same_bits"][DEFAULT.name]
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))
    return 0 if same else 1


@contextlib.contextmanager
def model_files(name: str) -> Iterator[tuple[Path, list[str]]]:
    """The model's file and those of its adapters."""
    sys.path.insert(0, str(ROOT / "tests" / "python"))
    from graph_cases import write_model

    from ggml_concurrent import zoo

    packaged = packaged_gemma() if name == "gemma3-270m" else None
    if packaged:
        yield packaged, []
    elif name in zoo.GRAPHS:
        with tempfile.TemporaryDirectory() as folder:
            yield write_model(name, Path(folder))
    elif Path(name).is_file():
        yield Path(name), []
    else:
        sys.exit(f"{name} is no file, and no graph of the zoo: ggml-concurrent graphs lists those")


def packaged_gemma() -> Path | None:
    from ggml_concurrent import Error
    from ggml_concurrent.models.package import package_model

    try:
        return package_model()
    except Error as error:
        print(f"{error}; its weights are random therefore", file=sys.stderr)
        return None


class Process(Conversation):
    """A process that computes in one way; it waits while others do."""

    def __init__(self, way: Way, request: dict[str, Any], cache: str) -> None:
        super().__init__(
            [
                sys.executable,
                str(ROOT / "scripts" / "_dropin_worker.py"),
                json.dumps(request | {"held": way.held}),
            ],
            {
                "GGML_CONCURRENT_CACHE": cache,
                "GGML_CONCURRENT_QUIET": "1",
                "GGML_CUDA_GRAPH_OPT": "0",
                "OMP_WAIT_POLICY": "passive",  # its threads are not to spin while others compute
                **way.environment,
            },
            f"the process of {way.name}",
        )

    def ask(self, **command: Any) -> dict[str, Any]:
        return json.loads(self.exchange(json.dumps(command)))


def compare(options: argparse.Namespace, request: dict[str, Any]) -> dict[str, Any]:
    """All times of all ways, in milliseconds."""
    ways = [PLAIN, AGAIN, *([GRAPH_OPT] if options.gpu else []), WARM]
    room = PROMPT + options.tuning + (options.rounds + 1) * options.tokens
    request = request | {"site": str(RUNNER), "threads": options.threads, "context": room}
    times: dict[str, dict[str, list[float]]] = {way.name: {} for way in ways}
    hashes: dict[str, list[str]] = {way.name: [] for way in ways}

    def ask(way: Way, process: Process, **command: int) -> list[float]:
        found = process.ask(**command)
        hashes[way.name].append(found["hash"])
        return found["ms"]

    def note(way: Way, what: str, milliseconds: float) -> None:
        times[way.name].setdefault(what, []).append(milliseconds)

    def measure(way: Way, process: Process, number: int) -> None:
        n_tokens = options.tokens if number else options.tuning
        n_prompts = PROMPTS if number else min(TUNING_PROMPTS, n_tokens)
        row = [ask(way, process, prompt=PROMPT)[0] for _ in range(n_prompts)]
        tokens = {n: ask(way, process, tokens=n_tokens, sequences=n) for n in SEQUENCES}
        if number:
            note(way, "row", sum(row))
            note(way, "prompt", statistics.median(row[SETTLED:]))
            for n, found in tokens.items():
                note(way, f"{n}", statistics.median(found))

    def take_turns(group: list[Way], cache: str) -> list[dict[str, Any]]:
        """All rounds; what the drop-in says of its devices, if it is among them."""
        with contextlib.ExitStack() as stack:
            all_of = [(way, stack.enter_context(Process(way, request, cache))) for way in group]
            for number in range(options.rounds + 1):
                first = number % len(group)
                for way, process in all_of[first:] + all_of[:first]:
                    measure(way, process, number)
            return [d for w, p in all_of if w.held for d in p.ask(report=True)["devices"]]

    groups = [[way] for way in ways] if options.alone else [ways]
    with tempfile.TemporaryDirectory() as cache:
        devices = [device for group in groups for device in take_turns(group, cache)]
        cold_hashes = cold(options, request, times, cache)
        choices = [path.read_text() for path in Path(cache).glob("*.tuning")]
    same = {name: found == hashes["plain"] for name, found in hashes.items()}
    same[DEFAULT.name] &= len(cold_hashes) <= 1
    return {"same_bits": same, "ms": times, "devices": devices, "choices": choices}


def cold(
    options: argparse.Namespace,
    request: dict[str, Any],
    times: dict[str, dict[str, list[float]]],
    known: str,
) -> set[str]:
    """New processes, with nothing on disk and with what is `known`: the first token, and all of an
    answer.
    """
    hashes = set()
    turns = [
        (PLAIN, "cold", ""), (AGAIN, "cold", ""), (DEFAULT, "cold", ""), (DEFAULT, "known", known),
    ]  # fmt: skip
    for number in range(options.cold_rounds):
        first = number % len(turns)
        for way, what, cache in turns[first:] + turns[:first]:
            with (
                tempfile.TemporaryDirectory() as empty,
                Process(way, request, cache or empty) as process,
            ):
                prompt = process.ask(prompt=PROMPT)
                devices = process.ask(report=True)["devices"] if way.held else []
                tokens = process.ask(tokens=options.tokens)
            hashes.add(prompt["hash"] + tokens["hash"])
            for name in (what,) if way is DEFAULT else ("cold", "known"):
                kept = times[way.name]
                kept.setdefault(f"{name} first", []).append(prompt["ms"][0])
                if way.held:
                    ours = sum(device["own_us"] for device in devices)
                    kept.setdefault(f"{name} first, ours", []).append(ours / 1e3)
                answer = prompt["ms"][0] + sum(tokens["ms"])
                kept.setdefault(f"{name} answer", []).append(answer)
    return hashes


def print_result(result: dict[str, Any], *, header: bool) -> None:
    lives = [f"{life} {what}" for life in ("cold", "known") for what in ("first", "answer")]
    columns = ["row", "prompt", *map(str, SEQUENCES), *lives]
    if header:
        names = ["row", "prompt", *(f"token, {n}" for n in SEQUENCES), *lives]
        print("| model | way |" + "".join(f" {name} |" for name in names * 2) + " spread |")
        print("| --- | --- |" + " ---: |" * (2 * len(columns) + 1))
    plain = result["ms"]["plain"]
    for way, times in result["ms"].items():
        ratios, numbers = [], []
        for column in columns:
            if column in times:
                taken = statistics.median(times[column])
                ratios.append(f"{statistics.median(plain[column]) / taken:.3f}x")
                numbers.append(f"{taken:.2f}")
            else:
                ratios.append("-")
                numbers.append("-")
        low, middle, high = statistics.quantiles(times["1"], n=4)
        cells = [result["model"], way, *ratios, *numbers, f"{100 * (high - low) / middle:.1f} %"]
        print(f"| {' | '.join(cells)} |")
    for way, same in result["same_bits"].items():
        if not same:
            print(f"{result['model']}, {way}: the logits have other bits than plain ones")
    sys.stdout.flush()
    for d in result["devices"]:
        told = f"{d['on_streams']} of {d['graphs']} graphs on streams, {d['plans']} plans"
        told += f", {d['own_us'] / 1e3:.1f} ms to look at them and to make them ready"
        why = d["reason"] or d["warning"]
        print(f"{result['model']}, {d['name']}: {told}{why and '; ' + why}", file=sys.stderr)
    for life in ("cold", "known"):
        ours = 1e3 * statistics.median(result["ms"][DEFAULT.name][f"{life} first, ours"])
        print(f"{result['model']}, {life}: {ours:.0f} us of the first token", file=sys.stderr)


def show_plans() -> int:
    """Of a token's graph, the last that each model computes."""
    sys.path.insert(0, str(ROOT / "tests" / "python"))
    from test_dropin_llama import ADAPTED, OTHERS, TINY, Request, device_of, model_of

    from ggml_concurrent.models.package import package_model

    print("| model | nodes | units | phases, theirs | phases, ours | own memory, KiB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        gemma = {"name": "gemma3-270m", "path": str(package_model()), "cases": ["short_prompts"]}
        models = [model_of(n, Path(folder), ["short_prompts"]) for n in (TINY, *OTHERS, *ADAPTED)]
        for model in (gemma, *models):
            last = device_of(Request(RUNNER, [model]).run(held=True))["last_plan"]
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
