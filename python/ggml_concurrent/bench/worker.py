"""The process of one candidate: holds a graph, computes it when asked to, and sleeps otherwise.

    python -m ggml_concurrent.bench.worker '{"graph": "towers-256", "runner": {"streams": 2}}'

It talks in lines of JSON (stepper.py): a request names what to `do` and its arguments; the answer
is an object, that of a failure {"error": text}.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import ExitStack
from typing import Any, TextIO

import numpy as np

from .. import zoo
from ..errors import Error
from ..runner import Runner
from ..stepper import Conversation
from . import study
from .burst import burst_for, mean_ms, warm_up
from .traffic import NO_WORK, raw_bytes


class Worker(Conversation):
    """The asking side: a worker process, which starts when this is made.

    Args:
        job: what the process is for, see `Job`.
        environment: variables of the process.
        what: names it in messages.
        wait: whether to wait until it is ready; else ready() has to be called.

    Raises Error when the process cannot do what it is asked to.
    """

    def __init__(
        self,
        job: dict[str, Any],
        environment: dict[str, str] | None = None,
        what: str = "a worker",
        wait: bool = True,
    ) -> None:
        command = [sys.executable, "-m", __name__, json.dumps(job)]
        super().__init__(command, environment, what, wait=False)
        if wait:
            self.ready()

    def ready(self) -> None:
        """Waits until it has built its graph."""
        try:
            self._read(self.greet())
        except BaseException:
            self.close(kill=True)
            raise

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a request."""
        return self._read(self.exchange(json.dumps({"do": do, **arguments})))

    def _read(self, line: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Error(f"{self.what}: {answer['error']}")
        return answer


class Job:
    """The working side: a graph of the zoo, and a runner of it.

    Args:
        graph: its name in the zoo.
        build: arguments of `zoo.build`.
        runner: arguments of the Runner, which is opened by the first request that needs it: others
            may be building meanwhile, and it measures; None for a job that only studies the graph.
    """

    def __init__(
        self,
        graph: str,
        build: dict[str, Any] | None = None,
        runner: dict[str, Any] | None = None,
    ) -> None:
        with ExitStack() as stack:
            self._workload = stack.enter_context(zoo.build(graph, **(build or {})))
            self._arguments = runner
            self._runner: Runner | None = None
            self._drifting: dict[str, np.ndarray] = {}
            self._checked = False
            self._burst = 1
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Frees everything."""
        self._stack.close()

    #
    # What it is asked to do
    #

    def check(self, computes: int) -> dict[str, Any]:
        """Hashes of every output and cache over a few computes in a row, and of every output over
        as many on other inputs each time.

        Caches whose contents depend on how often the graph was computed, such as recurrent states,
        are then put back to where they stand now, before every burst and every later check.
        """
        runner = self._open_runner()
        self._restore()
        hashes: dict[str, list[str]] = {}
        for _ in range(computes):
            for name, array in self._workload.run(runner).items():
                digest = hashlib.sha256(np.ascontiguousarray(array)).hexdigest()
                hashes.setdefault(name, []).append(digest)
        changing: dict[str, list[str]] = {}
        for step in range(computes):
            for name, array in self._workload.outputs(runner, step).items():
                digest = hashlib.sha256(np.ascontiguousarray(array)).hexdigest()
                changing.setdefault(f"{name}, other inputs", []).append(digest)
        self._workload.feed(runner)
        if not self._checked:
            drifting = self._written() & {n for n, row in hashes.items() if len(set(row)) > 1}
            self._drifting = {n: raw_bytes(self._workload.store[n]) for n in drifting}
            self._checked = True
        return {"hashes": {name: _joined(row) for name, row in (hashes | changing).items()}}

    def settle(self) -> dict[str, Any]:
        """Lets the runner find its way of computing, and finds how many computes make a burst.

        The answer holds fields of `results.Process`.
        """
        runner = self._open_runner()
        runner.settle()
        self._restore()
        self._burst = burst_for(runner.compute)
        plan = runner.plan
        (way,) = (way for way in runner.ways if way.in_use)
        return {
            "strategy": way.strategy,
            "streams": plan.stats.n_streams,
            "threads": way.threads,
            "planning_ms": (plan.stats.adapter_seconds + plan.stats.core_seconds) * 1e3,
            "buffer_bytes": runner.buffer_size,
            "burst": self._burst,
        }

    def time(self) -> dict[str, Any]:
        """Milliseconds of one compute, the mean of a burst."""
        compute = self._open_runner().compute
        self._restore()
        warm_up(compute)
        return {"ms": mean_ms(compute, self._burst)}

    def facts(self, threads: int, computes: int) -> dict[str, Any]:
        """See `study.facts`; for a job without a runner."""
        return study.facts(self._workload, threads, computes)

    def timeline(self, runner: dict[str, Any], computes: int) -> dict[str, Any]:
        """See `study.timeline`; for a job without a runner."""
        return study.timeline(self._workload, runner, computes)

    #
    # Details
    #

    def _open_runner(self) -> Runner:
        if self._arguments is None:
            raise Error("this worker was made without a runner")
        if self._runner is None:
            self._runner = self._stack.enter_context(self._workload.runner(**self._arguments))
        return self._runner

    def _written(self) -> set[str]:
        """Names of the store's tensors that the graph writes to."""
        roots = {
            n.view_src for n in self._workload.graph.nodes if n.is_view and n.op not in NO_WORK
        }
        return {name for name, t in self._workload.store.tensors.items() if t in roots}

    def _restore(self) -> None:
        for name, data in self._drifting.items():
            self._workload.store[name].set_raw(data)


def _joined(hashes: list[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


#
# The process
#

_REQUESTS = ("check", "settle", "time", "facts", "timeline")


def _serve(text: str, channel: TextIO) -> None:
    """Does what is asked for on standard input until that ends."""
    try:
        job = Job(**json.loads(text))
    except (Error, MemoryError, TypeError, ValueError) as error:
        _say(channel, _failure(error))
        return
    try:
        _say(channel, {})
        for line in sys.stdin:
            _say(channel, _answer(job, json.loads(line)))
    finally:
        job.close()


def _answer(job: Job, request: dict[str, Any]) -> dict[str, Any]:
    do = request.pop("do")
    try:
        if do not in _REQUESTS:
            raise Error(f"no request {do!r}")  # noqa: TRY301  answered like any other failure
        result: dict[str, Any] = getattr(job, do)(**request)
    except (Error, MemoryError, TypeError, ValueError) as error:
        return _failure(error)
    return result


def _failure(error: Exception) -> dict[str, Any]:
    return {"error": " ".join(str(error).split()) or type(error).__name__}


def _say(channel: TextIO, answer: dict[str, Any]) -> None:
    channel.write(json.dumps(answer) + "\n")
    channel.flush()


def _main() -> None:
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)  # whatever else is printed must not be taken for an answer
        _serve(sys.argv[1], channel)


if __name__ == "__main__":
    try:
        _main()
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(1)  # the one who asked is gone
