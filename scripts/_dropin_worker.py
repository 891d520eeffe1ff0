"""A process of dropin_figures.py: loads one model in llama-cpp-python and computes what it is told.

    python scripts/_dropin_worker.py REQUEST

REQUEST is JSON: `site`, the folder with llama_cpp; `held`, whether the drop-in has hold of it;
`model`, `adapters`, `threads`, `context` (tokens of each sequence). It greets when ready; each
line of standard input is then a command that is answered by a line:

    {"prompt": n}                      one sequence, from nothing
    {"tokens": n, "sequences": s}      of each of s sequences, one at a time for all of them
    {"report": true}                   what the drop-in says of its devices

Prompts and tokens are answered with milliseconds, one number a decode, and a hash of the logits.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "python"))
import dropin_llama

SHORT = 16  # tokens of the prompt of each of several sequences


class Worker:
    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.model = dropin_llama.Model(request["model"], request["adapters"])
        self.contexts: dict[int, dropin_llama.Context] = {}
        self.next: dict[int, tuple[list[int], int]] = {}  # tokens and their position
        self.rng = np.random.default_rng(1)

    def open(self, n: int) -> None:
        if n not in self.contexts:
            threads = self.request["threads"]
            size = self.request["context"] * n
            self.contexts[n] = dropin_llama.Context(
                self.model, n_seq_max=n, n_ctx=size, n_threads=threads, n_threads_batch=threads,
                flash_attn_type=-1,
            )  # fmt: skip

    def decode(self, n: int, tokens: list[int], start: int, sequences: list[int]) -> float:
        """Milliseconds until the logits are there; the likeliest tokens are `next`."""
        context = self.contexts[n]
        at = [start + sequences[:i].count(s) for i, s in enumerate(sequences)]
        begin = time.perf_counter()
        assert context.decode(tokens, at, sequences) == 0
        rows = [-1] if n == 1 else [len(tokens) - 1 - sequences[::-1].index(s) for s in range(n)]
        dropin_llama.lc.llama_get_logits_ith(context.pointer, rows[-1])  # waits for the device
        took = 1e3 * (time.perf_counter() - begin)
        self.next[n] = [context.take(row) for row in rows], max(at) + 1
        return took

    def prompt(self, n: int, length: int) -> float:
        lc = dropin_llama.lc
        lc.llama_memory_clear(lc.llama_get_memory(self.contexts[n].pointer), True)
        tokens = self.rng.integers(1, self.model.n_vocab, n * length).tolist()
        return self.decode(n, tokens, 0, [s for s in range(n) for _ in range(length)])

    def tokens(self, n: int, count: int) -> list[float]:
        if n > 1:
            self.prompt(n, SHORT)
        times = []
        for _ in range(count):
            tokens, position = self.next[n]
            times.append(self.decode(n, tokens, position, list(range(n))))
        return times

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        if "report" in command:
            return {"devices": report()}
        n = command.get("sequences", 1)
        self.open(n)
        self.contexts[n].hash = hashlib.sha256()
        if "prompt" in command:
            times = [self.prompt(n, command["prompt"])]
        else:
            times = self.tokens(n, command["tokens"])
        return {"ms": times, "hash": self.contexts[n].hash.hexdigest()}


def report() -> list[dict[str, Any]]:
    import ggml_concurrent as ggc

    names = ("name", "graphs", "on_streams", "plans", "failures", "own_us", "reason", "warning")
    devices = [d for host in ggc.attachment().hosts if not host.ours for d in host.devices]
    return [{name: getattr(device, name) for name in names} for device in devices]


def main() -> int:
    request = json.loads(sys.argv[1])
    sys.path.append(request["site"])
    import llama_cpp

    dropin_llama.lc = llama_cpp
    llama_cpp.llama_log_set(dropin_llama.SILENT, None)
    if request["held"]:
        import ggml_concurrent as ggc

        attached = ggc.attach(quiet=True)
        assert attached.held, attached
    llama_cpp.llama_backend_init()
    worker = Worker(request)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
