"""What a benchmark has measured, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from .candidates import CANDIDATES, reference_of
from .summary import Summary, summary

#: Other processes may take this share of the processors before it is told.
DISTURBED = 0.05

COMPLETE, INTERRUPTED, FAILED = "complete", "interrupted", "failed"


@dataclass(frozen=True)
class Settings:
    """What was asked for: all that repeating it needs."""

    graphs: tuple[str, ...]
    candidates: tuple[str, ...]
    device: str
    runs: int
    processes: int
    seconds: float | None
    streams: int
    threads: int
    n_tokens: int | None
    n_past: int | None
    dtype: str | None
    timeline: str | None
    without_cuda_graphs: bool = False


@dataclass
class Process:
    """The times of one process of a candidate.

    Attributes:
        strategy: by which units are placed on streams.
        streams: that the plan uses.
        threads: that compute it in all.
        burst: computes that one time is the mean of.
        times_ms: of one compute, a number for each repetition.
    """

    strategy: str
    streams: int
    threads: int
    planning_ms: float
    buffer_bytes: int
    burst: int
    times_ms: list[float] = field(default_factory=list)


@dataclass
class Measured:
    """One graph computed by one candidate, in some processes one after another.

    Two processes that do the same may differ by some percent, since where their memory lies is
    chance; the times of all count alike.

    Attributes:
        differs: outputs and caches whose bits are not those of plain ggml with all threads.
    """

    candidate: str
    processes: list[Process] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)

    @property
    def times_ms(self) -> list[float]:
        """The times of all processes."""
        return [ms for process in self.processes for ms in process.times_ms]

    @property
    def summary(self) -> Summary:
        """Statistics of the times."""
        return summary(self.times_ms)

    @property
    def ways(self) -> list[str]:
        """Strategy, streams and threads, each that occurs once."""
        return sorted({f"{p.strategy} {p.streams}/{p.threads}" for p in self.processes})

    @property
    def planning_ms(self) -> float:
        """The median of the processes."""
        return median(p.planning_ms for p in self.processes)

    @property
    def buffer_bytes(self) -> int:
        """The largest of the processes."""
        return max(p.buffer_bytes for p in self.processes)


@dataclass(frozen=True)
class Facts:
    """What a graph is, whoever computes it.

    Attributes:
        phases: the longest chain of units.
        width: most units in a phase.
        store_bytes: of weights and caches.
        bytes_read: of these in one compute.
        serial_buffer_bytes: what ggml's own allocator needs for the nodes in their order.
        work_ms: measured times of all units together, each the better of one and all threads;
            None where the device does not tell.
        critical_ms: the longest chain of these.
    """

    nodes: int
    units: int
    phases: int
    width: int
    store_bytes: int
    bytes_read: int
    serial_buffer_bytes: int | None
    work_ms: float | None
    critical_ms: float | None


@dataclass(frozen=True)
class Span:
    """A unit on the timeline; microseconds from the beginning of the compute."""

    stream: int
    start_us: float
    end_us: float
    op: str
    label: str


@dataclass(frozen=True)
class Timeline:
    """When units ran on the streams of one candidate."""

    candidate: str
    streams: int
    total_us: float
    spans: list[Span]


@dataclass
class GraphResult:
    """One graph computed by all candidates.

    Attributes:
        copy_gb_per_s: how fast as many bytes as the graph reads are copied: they may stay in
            the caches.
        others: share of the processors that other processes took during the race; None: unknown.
    """

    name: str
    about: str
    dtype: str
    n_tokens: int
    n_past: int
    copy_gb_per_s: float
    facts: Facts
    measured: list[Measured] = field(default_factory=list)
    timelines: list[Timeline] = field(default_factory=list)
    others: float | None = None

    def of(self, candidate: str) -> Measured | None:
        """What was measured of a candidate."""
        return next((m for m in self.measured if m.candidate == candidate), None)

    @property
    def baseline(self) -> Measured | None:
        """The serial candidate with the smallest median; None if none was measured."""
        serial = [m for m in self.measured if m.times_ms and CANDIDATES[m.candidate].serial]
        return min(serial, key=lambda m: m.summary.median, default=None)

    def ratio(self, measured: Measured, over: str | None = None) -> float | None:
        """How many times as fast as the baseline, or as the candidate `over`, one is."""
        base = self.baseline if over is None else self.of(over)
        if base is None or not base.times_ms:
            return None
        return base.summary.median / measured.summary.median

    def gb_per_s(self, measured: Measured) -> float:
        """Bytes that the graph reads, over the median."""
        return self.facts.bytes_read / measured.summary.median / 1e6

    def bytes_ms(self, memory_gb_per_s: float) -> float:
        """What reading the bytes takes at least: at the faster of memory's and caches' speed."""
        return self.facts.bytes_read / max(memory_gb_per_s, self.copy_gb_per_s) / 1e6

    def bound_ms(self, memory_gb_per_s: float) -> float:
        """No order of the units is faster than this: critical path, if it is known, or bytes."""
        return max(self.facts.critical_ms or 0.0, self.bytes_ms(memory_gb_per_s))


@dataclass(frozen=True)
class Bandwidth:
    """Measured copying between buffers much larger than the caches; read and written bytes.

    Attributes:
        threads: that copied; 0 where the device did.
    """

    gb_per_s: float
    nbytes: int
    threads: int


@dataclass
class Results:
    """A whole benchmark, finished or not."""

    when: str
    command: str
    machine: dict[str, str]
    settings: Settings
    state: str = FAILED  # until it is over
    bandwidth: Bandwidth | None = None
    graphs: list[GraphResult] = field(default_factory=list)

    def prune(self) -> None:
        """Forgets candidates and graphs of which no time was taken before the end came."""
        for graph in self.graphs:
            for m in graph.measured:
                m.processes = [p for p in m.processes if p.times_ms]
            graph.measured = [m for m in graph.measured if m.processes]
        self.graphs = [graph for graph in self.graphs if graph.measured]

    @property
    def differences(self) -> list[str]:
        """A sentence for each candidate whose bits should be those of plain ggml and are not.

        That ggml's own results depend on its number of threads, on kernels that begin too early, or
        on where its scheduler puts tensors, is no difference of ours.
        """
        reference = reference_of(self.settings.device)
        return [
            f"{graph.name}, {m.candidate}: {', '.join(m.differs)} differ from {reference}"
            for graph in self.graphs
            for m in graph.measured
            if m.differs and not CANDIDATES[m.candidate].serial
        ]

    @property
    def disturbances(self) -> list[str]:
        """A sentence for each graph whose times other processes have disturbed."""
        return [
            f"{graph.name}: other processes took {100 * graph.others:.0f} % of the processors"
            for graph in self.graphs
            if graph.others is not None and graph.others > DISTURBED
        ]

    def of(self, graph: str) -> GraphResult | None:
        """What was measured of a graph."""
        return next((g for g in self.graphs if g.name == graph), None)
