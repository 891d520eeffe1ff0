"""The race: every candidate in a process of its own, asked in turns."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from ..errors import Error
from . import device, graphs, machine
from .candidates import CANDIDATES, Candidate, kind_of, reference_of
from .results import (
    COMPLETE,
    Bandwidth,
    Facts,
    GraphResult,
    Measured,
    Process,
    Results,
    Settings,
    Span,
    Timeline,
)
from .worker import Worker

#: Computes in a row whose bits are compared, before the race and after it.
CHECKED = 3
#: Rounds that do not count.
WARM_ROUNDS = 1
#: However little time there is, so many rounds are measured.
LEAST_ROUNDS = 3
#: Computes that an operation's time is the median of.
TRACED = 7

#: Told how much of everything is done, 0 to 1, and what comes now.
Tell = Callable[[float, str], None]


def measure(results: Results, tell: Tell) -> None:
    """Measures what `results.settings` ask for; fills in `results` as it goes.

    An exception, KeyboardInterrupt too, leaves what is there by then; no process stays behind.
    """
    settings = results.settings
    tell(0.0, "how fast memory is copied")
    nbytes = device.memory_bytes(settings.device)
    rate = device.copy_gb_per_s(settings.device, nbytes, settings.threads)
    threads = settings.threads if kind_of(settings.device) == "cpu" else 0
    results.bandwidth = Bandwidth(rate, nbytes, threads)
    for i, name in enumerate(settings.graphs):

        def tell_part(part: float, text: str, i: int = i, name: str = name) -> None:
            tell((i + part) / len(settings.graphs), f"{name}: {text}")

        _measure_graph(results, name, tell_part)
    results.state = COMPLETE


def _measure_graph(results: Results, name: str, tell: Tell) -> None:
    settings = results.settings
    graph = _study(results, name, tell)
    if name == settings.timeline and graph.facts.critical_ms is None:
        raise Error(f"{settings.device} does not tell when operations run: there is no timeline")
    _check_memory(graph, len(_raced(settings)), settings.device)
    graph.measured = [Measured(candidate) for candidate in settings.candidates]
    results.graphs.append(graph)
    for number in range(settings.processes):

        def tell_part(part: float, text: str, number: int = number) -> None:
            tell(0.1 + 0.85 * (number + part) / settings.processes, text)

        _measure_processes(settings, graph, number, tell_part)
    if name == settings.timeline:
        tell(0.95, "timeline")
        graph.timelines = _timelines(settings, graph)


def _raced(settings: Settings) -> tuple[str, ...]:
    """Candidates that have a process: those that are measured, and the reference."""
    return tuple(dict.fromkeys([*settings.candidates, reference_of(settings.device)]))


def _check_memory(graph: GraphResult, processes: int, name: str) -> None:
    """Raises Error where that many processes would not fit: the system would kill some."""
    need, free = processes * graph.facts.store_bytes, device.free_memory(name)
    if free is not None and need > free:
        raise Error(
            f"{graph.name}: {processes} processes with {graph.facts.store_bytes / 1e9:.1f} GB of "
            f"weights and caches each do not fit into {free / 1e9:.1f} GB of memory; compare fewer "
            f"candidates ({reference_of(name)!r} has to be there)"
        )


def _measure_processes(settings: Settings, graph: GraphResult, number: int, tell: Tell) -> None:
    """Lets a process of each candidate race, and compares their bits before and after."""
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for candidate in _raced(settings):
            worker = _open(settings, graph.name, CANDIDATES[candidate])
            workers[candidate] = stack.enter_context(worker)
        for done, (candidate, worker) in enumerate(workers.items()):  # all build at once
            tell(0.1 * done / len(workers), f"{candidate} opens")
            worker.ready()
        hashes = _hashes(workers)
        for m in graph.measured:
            tell(0.1, f"{m.candidate} settles")
            m.processes.append(Process(**workers[m.candidate].ask("settle")))
        _compare(settings, graph, hashes)
        load = machine.Load([os.getpid(), *(worker.pid for worker in workers.values())])
        try:
            _race(settings, graph.measured, workers, number, tell)
        finally:
            others = load.others()
            graph.others = others if graph.others is None else max(graph.others, others or 0.0)
        _compare(settings, graph, _hashes(workers))


def _job(settings: Settings, name: str) -> dict[str, Any]:
    """A worker's job, without a runner."""
    build = graphs.build_arguments(settings, name)
    return {"graph": graphs.read(name).entry.name, "build": build}


def _open(settings: Settings, name: str, candidate: Candidate) -> Worker:
    """A process of a candidate, not yet ready."""
    runner = candidate.runner_arguments(settings.streams, settings.threads, settings.device)
    return Worker(
        {**_job(settings, name), "runner": runner},
        candidate.variables(settings.device),
        f"{name}, {candidate.name}",
        wait=False,
    )


def _study(results: Results, name: str, tell: Tell) -> GraphResult:
    """The graph without measurements."""
    tell(0.0, "operation by operation")
    settings = results.settings
    entry, build = graphs.read(name).entry, graphs.build_arguments(settings, name)
    with Worker(_job(settings, name), what=name) as worker:
        facts = Facts(**worker.ask("facts", threads=settings.threads, computes=TRACED))
    tell(0.05, "how fast as many bytes are copied")
    memory = results.bandwidth
    if memory is not None and facts.bytes_read >= memory.nbytes:
        rate = memory.gb_per_s
    else:
        rate = device.copy_gb_per_s(settings.device, facts.bytes_read, settings.threads)
    return GraphResult(
        name=name,
        about=entry.about,
        dtype=build.get("dtype", entry.dtype),
        n_tokens=build.get("n_tokens", entry.n_tokens),
        n_past=build.get("n_past", entry.n_past),
        copy_gb_per_s=rate,
        facts=facts,
    )


def _hashes(workers: dict[str, Worker]) -> dict[str, dict[str, str]]:
    """Of each candidate's outputs and caches."""
    return {c: worker.ask("check", computes=CHECKED)["hashes"] for c, worker in workers.items()}


def _compare(settings: Settings, graph: GraphResult, hashes: dict[str, dict[str, str]]) -> None:
    """Notes which outputs and caches have other bits than the reference's."""
    expected = hashes[reference_of(settings.device)]
    for measured in graph.measured:
        found = hashes[measured.candidate]
        wrong = {n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n)}
        measured.differs = sorted(wrong.union(measured.differs))


def _race(
    settings: Settings,
    measured: Sequence[Measured],
    workers: dict[str, Worker],
    number: int,
    tell: Tell,
) -> None:
    """Rounds in which each candidate has its turn, after another one each time.

    number: of the processes that race now; each has its share of the rounds and of the time.
    """
    runs = len(range(number, settings.runs, settings.processes))
    for _ in range(WARM_ROUNDS):
        for m in measured:
            workers[m.candidate].ask("time")
    order = random.Random(number)  # noqa: S311  the same in every run of the same settings
    begin = time.perf_counter()
    for done in range(runs):
        used = 0.0
        if settings.seconds is not None:
            seconds = settings.seconds / settings.processes
            used = (time.perf_counter() - begin) / max(seconds, 1e-9)
            if used >= 1 and done >= max(1, LEAST_ROUNDS // settings.processes):
                return
        share = max(done / runs, min(used, 1.0))
        turns = list(measured)
        order.shuffle(turns)
        for m in turns:
            tell(0.1 + 0.9 * share, f"{m.candidate}, round {done + 1}")
            m.processes[-1].times_ms.append(workers[m.candidate].ask("time")["ms"])


def _timelines(settings: Settings, graph: GraphResult) -> list[Timeline]:
    """The timelines of the candidates, each in the way that it was measured in."""
    timelines = []
    for m in graph.measured:
        p = m.processes[-1]
        way = {"strategy": p.strategy, "streams": p.streams, "threads": p.threads, "always": True}
        with Worker(_job(settings, graph.name), what=f"{graph.name}, {m.candidate}") as worker:
            answer = worker.ask("timeline", runner=way, computes=TRACED)
        spans = [Span(**span) for span in answer.pop("spans")]
        timelines.append(Timeline(m.candidate, spans=spans, **answer))
    return timelines
