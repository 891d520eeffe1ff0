"""The ways of computing a graph that are compared, and the graphs that are compared by default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import DeviceError, Error
from ..runner import CACHE_VARIABLE
from ..zoo import GRAPHS

#: Stand in a candidate's arguments for the numbers of streams and threads that were asked for.
STREAMS, THREADS = "streams asked for", "threads asked for"


@dataclass(frozen=True)
class Candidate:
    """One way of computing a graph.

    Attributes:
        name: on the command line.
        about: one line for a reader.
        arguments: of its Runner; STREAMS and THREADS are replaced.
        environment: variables of its process.
        devices: kinds of devices that it exists for.
        serial: whether it is plain ggml, one operation after another: what others are measured by.
    """

    name: str
    about: str
    arguments: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ("cpu", "cuda")
    serial: bool = False

    def runner_arguments(self, streams: int, threads: int) -> dict[str, Any]:
        """Arguments for Runner."""
        numbers = {STREAMS: streams, THREADS: threads}
        return {
            key: numbers.get(value, value) if isinstance(value, str) else value
            for key, value in self.arguments.items()
        }


_SERIAL = {"streams": 1, "threads": THREADS}
_STREAMS = {"streams": STREAMS, "threads": THREADS}

#: Name -> candidate.
CANDIDATES: dict[str, Candidate] = {
    c.name: c
    for c in (
        Candidate("serial", "plain ggml, all threads", _SERIAL, serial=True),
        Candidate(
            "serial1",
            "plain ggml, 1 thread",
            {"streams": 1, "threads": 1},
            devices=("cpu",),
            serial=True,
        ),
        Candidate("streams", "our plan, always on streams", {**_STREAMS, "always": True}),
        Candidate(
            "levels",
            "the same, placed phase by phase",
            {**_STREAMS, "always": True, "strategy": "levels"},
        ),
        Candidate(
            "default",
            "what a Runner chooses by itself, tuned for this run",
            _STREAMS,
            environment={CACHE_VARIABLE: ""},  # nothing remembered, and nothing to remember
        ),
        Candidate(
            "graph-opt",
            "ggml's own streams, GGML_CUDA_GRAPH_OPT=1",
            _SERIAL,
            environment={"GGML_CUDA_GRAPH_OPT": "1"},
            devices=("cuda",),
            serial=True,
        ),
        Candidate("direct", "plain ggml without its scheduler", _SERIAL, devices=("cuda",)),
    )
}

#: The candidate with whose bits those of the others are compared, measured or not.
REFERENCE = "serial"

#: Candidates measured when none are named.
COMPARED = ("serial", "serial1", "streams", "levels", "default")

#: Devices that are measured on.
DEVICES = ("cpu",)

#: Graphs measured on the CPU when none are named: towers-256, and all made to be small.
CPU_DEFAULT: tuple[str, ...] = tuple(
    name for name in GRAPHS if name == "towers-256" or name.endswith("-small")
)


def kind_of(device: str) -> str:
    """The kind of a device: "cuda" of "cuda0"."""
    return device.rstrip("0123456789")


def choose(names: Iterable[str], device: str) -> list[Candidate]:
    """The candidates of these names.

    Raises:
        Error: a name is unknown or twice there, none is serial, or one is not for that device.
        DeviceError: the bench does not measure on that device.
    """
    chosen: dict[str, Candidate] = {}
    for name in names:
        candidate = CANDIDATES.get(name)
        if candidate is None:
            raise Error(f"no candidate {name!r}; there are: {', '.join(CANDIDATES)}")
        if name in chosen:
            raise Error(f"candidate {name!r} is named twice")
        if kind_of(device) not in candidate.devices:
            kinds = " and ".join(candidate.devices)
            raise Error(f"candidate {name!r} exists for {kinds} only, not for device {device!r}")
        chosen[name] = candidate
    if device not in DEVICES:
        raise DeviceError(
            f"no device {device!r} here: this version of the bench measures on "
            f"{', '.join(DEVICES)} only"
        )
    if not any(c.serial for c in chosen.values()):
        serial = ", ".join(c.name for c in CANDIDATES.values() if c.serial)
        raise Error(f"one of the serial candidates is needed to compare with: {serial}")
    return list(chosen.values())


def check_graphs(names: Iterable[str]) -> tuple[str, ...]:
    """The names, each once. Raises Error unless all are in the zoo."""
    for name in (chosen := tuple(dict.fromkeys(names))):
        if name not in GRAPHS:
            raise Error(f"no graph {name!r} in the zoo; it has: {', '.join(sorted(GRAPHS))}")
    return chosen
