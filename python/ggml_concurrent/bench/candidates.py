"""The ways of computing a graph that are compared, and the graphs that are compared by default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import Error
from ..runner import CACHE_VARIABLE
from ..zoo import GRAPHS

#: The variable that gives ggml-cuda streams of its own; each candidate says whether it is set.
GRAPH_OPT = "GGML_CUDA_GRAPH_OPT"

#: The variable that says whether ggml-cuda's kernels may begin before the one before them is over.
PDL = "GGML_CUDA_PDL"

#: Stand in a candidate's arguments for the numbers of streams and threads that were asked for.
STREAMS, THREADS = "streams asked for", "threads asked for"


@dataclass(frozen=True)
class Candidate:
    """One way of computing a graph.

    Attributes:
        name: on the command line.
        about: one line for a reader.
        arguments: of its Runner; STREAMS and THREADS are replaced.
        environment: variables of its process, besides those of all.
        on_cuda: further arguments of its Runner there.
        devices: kinds of devices that it exists for.
        serial: whether it is plain ggml, one operation after another: what others are measured by.
    """

    name: str
    about: str
    arguments: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    on_cuda: Mapping[str, Any] = field(default_factory=dict)
    devices: tuple[str, ...] = ("cpu", "cuda")
    serial: bool = False

    def runner_arguments(self, streams: int, threads: int, device: str = "cpu") -> dict[str, Any]:
        """Arguments for Runner."""
        numbers = {STREAMS: streams, THREADS: threads}
        further = self.on_cuda if kind_of(device) == "cuda" else {}
        return {
            key: numbers.get(value, value) if isinstance(value, str) else value
            for key, value in {**self.arguments, **further}.items()
        }

    def variables(self, device: str) -> dict[str, str]:
        """Variables of its process.

        Nothing is remembered from other runs, and nothing for others; ggml's own streams are off
        unless this candidate is them.
        """
        off = {GRAPH_OPT: "0"} if kind_of(device) == "cuda" else {}
        return {CACHE_VARIABLE: "", **off, **self.environment}


def kind_of(device: str) -> str:
    """The kind of a device: "cuda" of "cuda0"."""
    return device.rstrip("0123456789")


def reference_of(device: str) -> str:
    """The candidate with whose bits those of the others are compared there."""
    return REFERENCES[kind_of(device)]


_SERIAL = {"streams": 1, "threads": THREADS}
_SCHEDULED = {"scheduled": True}
_STREAMS = {"streams": STREAMS, "threads": THREADS}

#: Name -> candidate.
CANDIDATES: dict[str, Candidate] = {
    c.name: c
    for c in (
        Candidate(
            "serial",
            "plain ggml, all threads; on CUDA through its scheduler, as llama.cpp computes",
            _SERIAL,
            on_cuda=_SCHEDULED,
            serial=True,
        ),
        Candidate(
            "serial1",
            "plain ggml, 1 thread",
            {"streams": 1, "threads": 1},
            devices=("cpu",),
            serial=True,
        ),
        Candidate(
            "streams", "our plan by guessed costs, always on streams", {**_STREAMS, "always": True}
        ),
        Candidate(
            "levels",
            "the same, placed phase by phase",
            {**_STREAMS, "always": True, "strategy": "levels"},
        ),
        Candidate(
            "default",
            "what a Runner chooses by itself, tuned for this run",
            _STREAMS,
        ),
        Candidate(
            "tuned",
            "the same, chosen from more ways on CUDA: tune=full",
            {**_STREAMS, "tune": "full"},
        ),
        Candidate(
            "graph-opt",
            "as serial, with ggml's own streams: GGML_CUDA_GRAPH_OPT=1",
            _SERIAL,
            on_cuda=_SCHEDULED,
            environment={GRAPH_OPT: "1"},
            devices=("cuda",),
            serial=True,
        ),
        Candidate(
            "direct", "a Runner of one stream: mostly plain ggml", _SERIAL, devices=("cuda",)
        ),
        Candidate(
            "in-turn",
            "as direct, each kernel after the one before it is over: GGML_CUDA_PDL=0",
            _SERIAL,
            environment={PDL: "0"},
            devices=("cuda",),
            serial=True,
        ),
    )
}

#: The candidate with whose bits those of the others are compared, measured or not, by the kind of
#: device. On CUDA ggml's own kernels may read too early: see docs/cuda.md.
REFERENCES = {"cpu": "serial", "cuda": "in-turn"}

#: Candidates measured when none are named, by the kind of device.
COMPARED = {
    "cpu": ("serial", "serial1", "streams", "levels", "default"),
    "cuda": ("serial", "graph-opt", "streams", "default"),
}

#: Kinds of devices that are measured on.
DEVICES = tuple(COMPARED)

#: Graphs measured on the CPU when none are named: towers-256, and all made to be small.
CPU_DEFAULT: tuple[str, ...] = tuple(
    name for name in GRAPHS if name == "towers-256" or name.endswith("-small")
)

#: Graphs measured on CUDA when none are named: decoding in real sizes, wide graphs and dense ones.
CUDA_DEFAULT: tuple[str, ...] = (
    "towers-1024",
    "rwkv7-1.5b",
    "rwkv7-1.5b@dtype=f16",
    "llama-1b-lora",
    "falcon-h1-1.5b",
    "gptj-1b",
    "gptj-1b@past=8191",
    "gptj-6b@past=2047,dtype=f16",
    "falcon-7b@past=2047,dtype=q8_0",
    "qwen2moe-16l",
    "llama-1b",
    "llama-1b@tokens=8",
    "llama-1b@tokens=64",
    "llama-0.4b",
    "llama-7b",
    "llama-8b@past=2047",
    "llama-0.4b-x4",
)

#: The same by the kind of device.
DEFAULT_GRAPHS = {"cpu": CPU_DEFAULT, "cuda": CUDA_DEFAULT}


def choose(names: Iterable[str], device: str) -> list[Candidate]:
    """The candidates of these names.

    Raises Error: a name is unknown or twice there, none is serial, or one is not for that device.
    """
    chosen: dict[str, Candidate] = {}
    for name in names:
        candidate = CANDIDATES.get(name)
        if candidate is None:
            raise Error(f"no candidate {name!r}; there are: {', '.join(CANDIDATES)}")
        if name in chosen:
            raise Error(f"candidate {name!r} is named twice")
        if kind_of(device) in DEVICES and kind_of(device) not in candidate.devices:
            kinds = " and ".join(candidate.devices)
            raise Error(f"candidate {name!r} exists for {kinds} only, not for device {device!r}")
        chosen[name] = candidate
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
