"""Plans: which nodes of a graph may run at the same time, and the proof."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ._native import ffi, ggml, lib, message_of, raise_status
from .errors import GraphError, PlanError, RaceError
from .graph import Graph

__all__ = ["BARRIER", "Conflict", "Plan", "PlanStats", "Step", "find_concurrency"]

BARRIER: int = lib.GGC_BARRIER
"""Stands between two phases in `Plan.list`; no node has this index."""

_FUSES = {
    "none": lib.GGC_FUSE_NONE,
    "cpu": lib.GGC_FUSE_CPU,
    "cuda": lib.GGC_FUSE_CUDA,
    "metal": lib.GGC_FUSE_METAL,
}
_STRATEGIES = {
    "list": lib.GGC_STRATEGY_LIST,
    "serial": lib.GGC_STRATEGY_SERIAL,
    "levels": lib.GGC_STRATEGY_LEVELS,
    "cover": lib.GGC_STRATEGY_COVER,
}


_HAZARDS = {
    number: name.removeprefix("GGC_")
    for name, number in ffi.typeof("enum ggc_hazard").relements.items()
    if number != lib.GGC_HAZARD_COUNT
}


def choice(value: Any, choices: dict[str, int], what: str) -> int:
    """The number of a choice given by name."""
    if value not in choices:
        raise GraphError(f"{what} is {value!r}, expected one of {', '.join(choices)}")
    return choices[value]


def count(value: Any, low: int, high: int, what: str) -> int:
    """A number of things. TypeError or GraphError if it is none."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what}: expected an int, got {type(value).__name__}")
    if not low <= value <= high:
        raise GraphError(f"{what} is {value}, expected {low} to {high}")
    return value


def fuse_of(value: str) -> int:
    return choice(value, _FUSES, "fuse")


def strategy_of(value: str) -> int:
    return choice(value, _STRATEGIES, "strategy")


def strategy_name(number: int) -> str:
    return next(name for name, value in _STRATEGIES.items() if value == number)


class Step(NamedTuple):
    """One unit on a stream: starts when all that it waits for has finished."""

    unit: int
    nodes: tuple[int, ...]
    waits: tuple[int, ...]  # units of other streams


@dataclass(frozen=True)
class PlanStats:
    """Numbers about a plan; costs in microseconds, times in seconds."""

    n_nodes: int
    n_units: int
    n_phases: int  # the longest chain of units that have to follow one another
    width: int  # most units in one phase
    n_streams: int  # streams that got a unit
    n_deps: int
    n_waits: int
    hazards: dict[str, int]  # of n_deps: "RAW", "WAR", "WAW", "FENCE"
    cost: float  # all units one after another
    critical: float  # the longest chain
    adapter_seconds: float  # reading the graph
    core_seconds: float  # finding dependences, phases and streams


@dataclass(frozen=True)
class Conflict:
    """Two units that must not run at once, and bytes for which they conflict."""

    first: tuple[int, ...]  # nodes of the one that comes first
    second: tuple[int, ...]
    hazard: str  # "RAW", "WAR", "WAW" or "FENCE"
    buffer: int
    begin: int  # bytes begin .. end of the buffer, end not included
    end: int
    text: str = field(repr=False)

    def __str__(self) -> str:
        return self.text


class Plan:
    """What may run at the same time in a graph, and a placement on streams.

    Nodes are named by their index in the graph.  A plan is plain data: it stays valid when the
    graph is closed, and a changed copy of it can be verified.

    Attributes:
        phases: lists of nodes. Inside of a phase any order is right; between two phases all of the
            first comes before all of the second.  Nodes that compute nothing, such as views, stand
            in the phase of what they show.
        streams: for each stream its steps, in order.
        units: the nodes of each unit. Nodes that compute nothing belong to none, unless they stand
            between nodes that a backend may fuse.
        deps: for each unit those that it directly depends on, all earlier ones.
        labels: operation and name of each node.
        stats: numbers.
    """

    def __init__(
        self,
        phases: builtins.list[builtins.list[int]],
        streams: builtins.list[builtins.list[Step]],
        units: builtins.list[tuple[int, ...]],
        stats: PlanStats,
        labels: Sequence[str],
        deps: builtins.list[tuple[int, ...]],
        proof: Proof,
    ) -> None:
        self.phases = phases
        self.streams = streams
        self.units = units
        self.stats = stats
        self.labels = tuple(labels)
        self.deps = deps
        self._proof = proof

    @property
    def order(self) -> builtins.list[int]:
        """Every node once, phase by phase."""
        return [node for phase in self.phases for node in phase]

    def expected_times(self) -> builtins.list[tuple[int, float, float]]:
        """Of each unit its stream, and when it starts and ends by the estimated costs.

        Microseconds from the beginning; each starts as soon as it can, and waits cost nothing.
        """
        times = [(0, 0.0, 0.0)] * len(self.units)
        stream_of = {s.unit: k for k, steps in enumerate(self.streams) for s in steps}
        free = [0.0] * len(self.streams)
        for step in _issue_order(self.streams):
            stream = stream_of[step.unit]
            start = max([free[stream], *(times[v][2] for v in step.waits)])
            free[stream] = start + self._proof.cost(step.unit)
            times[step.unit] = (stream, start, free[stream])
        return times

    @property
    def list(self) -> builtins.list[int]:
        """The order with BARRIER between two phases."""
        entries: builtins.list[int] = []
        for phase in self.phases:
            entries += [BARRIER, *phase] if entries else phase
        return entries

    #
    # Proof
    #

    def verify(self) -> None:
        """Proves the streams and the phases race-free, with code that the planner does not share.

        Raises:
            RaceError: two conflicting accesses are not ordered; names nodes and bytes.
            PlanError: the streams do not hold every unit once, or wait for what comes later.
        """
        self._proof.check_streams(self.streams, self._say)
        self._proof.check_phases(self._unit_phases(), self._say)

    def explain(self, a: int, b: int) -> Conflict | None:
        """Why two nodes cannot run at once: the bytes, or None if they do not conflict directly."""
        first, second = sorted((self._unit_of(a), self._unit_of(b)))
        if first == second:
            return None
        return self._proof.explain(first, second, self._say)

    def _unit_of(self, node: int) -> int:
        if not 0 <= node < len(self.labels):
            raise PlanError(f"there is no node {node}: the graph has {len(self.labels)}")
        for unit, nodes in enumerate(self.units):
            if node in nodes:
                return unit
        raise PlanError(f"node {node} {self.labels[node]} computes nothing")

    def _unit_phases(self) -> builtins.list[int]:
        phase_of = {node: i for i, phase in enumerate(self.phases) for node in phase}
        try:
            return [phase_of[nodes[0]] for nodes in self.units]
        except KeyError as missing:
            raise PlanError(f"node {missing} is in no phase") from None

    def _say(self, conflict: Any) -> Conflict:
        """A conflict of the core in terms of nodes."""
        first, second = self.units[conflict.a], self.units[conflict.b]
        meaning = message_of(lib.ggc_hazard_string(conflict.hazard))
        begin, end = int(conflict.begin), int(conflict.end)
        place = "everything"
        if end > begin:
            place = f"bytes {begin} to {end} of buffer {conflict.buffer}"
        text = f"{self._name(first)} and {self._name(second)} conflict on {place} ({meaning})"
        hazard = _HAZARDS[conflict.hazard]
        return Conflict(first, second, hazard, int(conflict.buffer), begin, end, text)

    def _name(self, nodes: Sequence[int]) -> str:
        names = ", ".join(f"{i} {self.labels[i]}" for i in nodes)
        return f"node {names}" if len(nodes) == 1 else f"nodes {names}"

    @property
    def proof(self) -> Proof:
        """The accesses of the units."""
        return self._proof

    def critical_path(self) -> builtins.list[int]:
        """The units of the chain that takes longest, by the costs the plan was made with."""
        finish: builtins.list[float] = []
        before: builtins.list[int | None] = []
        for unit, deps in enumerate(self.deps):
            latest = max(deps, key=lambda dep: finish[dep], default=None)
            start = 0.0 if latest is None else finish[latest]
            finish.append(start + self._proof.cost(unit))
            before.append(latest)
        path: builtins.list[int] = []
        at = max(range(len(finish)), key=lambda unit: finish[unit], default=None)
        while at is not None:
            path.append(at)
            at = before[at]
        return path[::-1]

    #
    # As data
    #

    def to_json(self) -> str:
        """The plan as JSON text; equal graphs give equal texts, on every machine."""
        from . import plan_file

        return plan_file.dump(self)

    @staticmethod
    def from_json(text: str | bytes) -> Plan:
        """The plan in a text of to_json. It is not verified: call verify().

        Raises:
            FormatError: the text is no plan; names the field.
        """
        from . import plan_file

        return plan_file.load(text)

    def to_dot(self) -> str:
        """The dependences for graphviz's `dot`, a cluster for each phase."""
        from . import plan_file

        return plan_file.dot(self)

    #
    # Reading
    #

    def __repr__(self) -> str:
        s = self.stats
        return f"<Plan {s.n_nodes} nodes, {s.n_phases} phases, {s.n_streams} streams>"

    def __str__(self) -> str:
        s = self.stats
        hazards = ", ".join(f"{n} {kind}" for kind, n in s.hazards.items() if n) or "none"
        head = (
            f"{s.n_nodes} nodes, {s.n_units} units, {s.n_phases} phases of at most {s.width} units"
        )
        lines = [f"{head}; {s.n_streams} streams, {s.n_waits} waits; dependences: {hazards}"]
        stream_of = {st.unit: i for i, steps in enumerate(self.streams) for st in steps}
        unit_of = {node: u for u, nodes in enumerate(self.units) for node in nodes}
        for i, phase in enumerate(self.phases):
            lines.append(f"phase {i}")
            for node in phase:
                stream = stream_of.get(unit_of.get(node, -1))
                where = "      -" if stream is None else f"stream {stream}"
                lines.append(f"  {where:>9}  {node:>5}  {self.labels[node]}")
        return "\n".join(lines)


#
# Copies of the core's data
#


def _copy(ctype: str, pointer: Any, n: int) -> Any:
    """An array that Python owns; NULL stays NULL."""
    if pointer == ffi.NULL:
        return ffi.NULL
    copy = ffi.new(f"{ctype}[]", max(n, 1))
    ffi.memmove(copy, pointer, n * ffi.sizeof(ctype))
    return copy


class Access(NamedTuple):
    """Bytes that a unit touches: `count` runs of `run` bytes, `stride` from start to start."""

    mode: int  # GGC_READ or GGC_WRITE
    buffer: int
    offset: int
    run: int
    stride: int
    count: int


class Proof:
    """The accesses of a plan's units, kept to verify and explain."""

    def __init__(self, units: Any) -> None:
        n = units.n_units
        n_accesses = units.access_begin[n] if n else 0
        arrays = {
            "access_begin": _copy("uint32_t", units.access_begin, n + 1),
            "accesses": _copy("struct ggc_access", units.accesses, n_accesses),
            "fence": _copy("uint8_t", units.fence, n),
            "cost": _copy("double", units.cost, n),
        }
        self._arrays = arrays  # the struct only points to them
        self._units = ffi.new("struct ggc_units *", {"n_units": n, **arrays})

    @property
    def n_units(self) -> int:
        return int(self._units.n_units)

    @property
    def pointer(self) -> Any:
        """The ggc_units."""
        return self._units

    def cost(self, unit: int) -> float:
        return float(self._units.cost[unit])

    def is_fence(self, unit: int) -> bool:
        return bool(self._units.fence[unit])

    def accesses(self, unit: int) -> list[Access]:
        begin, end = self._units.access_begin[unit], self._units.access_begin[unit + 1]
        rows = (self._units.accesses[i] for i in range(begin, end))
        return [Access(a.mode, a.buffer, a.offset, a.run, a.stride, a.count) for a in rows]

    @classmethod
    def of(
        cls, rows: Sequence[Sequence[Access]], fences: Sequence[bool], costs: Sequence[float]
    ) -> Proof:
        """Of units given as Python data."""
        begin = [0]
        for row in rows:
            begin.append(begin[-1] + len(row))
        accesses = [access._asdict() for row in rows for access in row]
        arrays = {
            "access_begin": ffi.new("uint32_t[]", begin),
            "accesses": ffi.new("struct ggc_access[]", accesses or [{}]),
            "fence": ffi.new("uint8_t[]", [int(fence) for fence in fences] or [0]),
            "cost": ffi.new("double[]", list(costs) or [0.0]),
        }
        return cls(ffi.new("struct ggc_units *", {"n_units": len(rows), **arrays}))

    def _check(self, status: int, race: Any, say: Any, what: str) -> None:
        if status == lib.GGC_E_RACE:
            raise RaceError(f"{what}: {say(race)}")
        if status == lib.GGC_E_INVALID:
            raise PlanError(f"{what}: not a schedule of these units")
        raise_status(status, "", what)

    def check_streams(self, streams: Sequence[Sequence[Step]], say: Any) -> None:
        race = ffi.new("struct ggc_conflict *")
        schedule, keep = _schedule(streams, self.n_units)
        status = lib.ggc_verify_schedule(self._units, schedule, race)
        del keep
        self._check(status, race, say, "streams")

    def check_phases(self, phases: Sequence[int], say: Any) -> None:
        race = ffi.new("struct ggc_conflict *")
        status = lib.ggc_verify_phases(self._units, ffi.new("uint32_t[]", phases or [0]), race)
        self._check(status, race, say, "phases")

    def explain(self, a: int, b: int, say: Any) -> Conflict | None:
        conflict = ffi.new("struct ggc_conflict *")
        status = lib.ggc_explain(self._units, a, b, conflict)
        return say(conflict) if status == lib.GGC_OK else None


def _issue_order(streams: Sequence[Sequence[Step]]) -> list[Step]:
    """All steps, each after those before it on its stream and those it waits for."""
    queues = [list(reversed(steps)) for steps in streams]
    issued: set[int] = set()
    order: list[Step] = []
    while any(queues):
        before = len(order)
        for queue in queues:
            while queue and issued.issuperset(queue[-1].waits):
                step = queue.pop()
                issued.add(step.unit)
                order.append(step)
        if len(order) == before:
            stuck = sorted(q[-1].unit for q in queues if q)
            raise PlanError(f"units {stuck} wait for units that are never issued before them")
    return order


def _schedule(streams: Sequence[Sequence[Step]], n_units: int) -> tuple[Any, Any]:
    """The streams as a ggc_schedule, and what it points to."""
    order = _issue_order(streams)
    if sorted(step.unit for step in order) != list(range(n_units)):
        raise PlanError(f"the streams hold {len(order)} steps, not each of {n_units} units once")
    stream_of = {step.unit: i for i, steps in enumerate(streams) for step in steps}
    by_unit = sorted(order)
    begin = [0]
    for step in by_unit:
        begin.append(begin[-1] + len(step.waits))
    arrays = {
        "order": ffi.new("uint32_t[]", [s.unit for s in order] or [0]),
        "stream": ffi.new("uint32_t[]", [stream_of[u] for u in range(n_units)] or [0]),
        "wait_begin": ffi.new("uint32_t[]", begin),
        "waits": ffi.new("uint32_t[]", [w for s in by_unit for w in s.waits] or [0]),
    }
    schedule = ffi.new(
        "struct ggc_schedule *", {"n_units": n_units, "n_streams": max(len(streams), 1), **arrays}
    )
    return schedule, arrays


def _streams_of(core: Any, units: list[tuple[int, ...]]) -> list[list[Step]]:
    schedule = lib.ggc_plan_schedule(core)
    streams: list[list[Step]] = [[] for _ in range(schedule.n_streams)]
    for i in range(schedule.n_units):
        u = schedule.order[i]
        waits = tuple(schedule.waits[schedule.wait_begin[u] : schedule.wait_begin[u + 1]])
        streams[schedule.stream[u]].append(Step(u, units[u], waits))
    return streams


def _units_of(plan: Any, n_units: int) -> list[tuple[int, ...]]:
    n = ffi.new("uint32_t *")
    units = []
    for u in range(n_units):
        nodes = lib.ggc_graph_plan_nodes(plan, u, n)
        units.append(tuple(nodes[0 : n[0]]))
    return units


def _phases_of(plan: Any, n_nodes: int) -> list[list[int]]:
    phase_of = lib.ggc_graph_plan_node_phases(plan)[0:n_nodes]
    phases: list[list[int]] = [[] for _ in range(max(phase_of, default=-1) + 1)]
    for node, phase in enumerate(phase_of):
        phases[phase].append(node)
    return [phase for phase in phases if phase]


def deps_of(core: Any, n_units: int) -> list[tuple[int, ...]]:
    """For each unit of a ggc_plan, those that it directly depends on."""
    n = ffi.new("uint32_t *")
    rows = []
    for u in range(n_units):
        deps = lib.ggc_plan_deps(core, u, n)
        rows.append(tuple(deps[0 : n[0]]))
    return rows


def hazard_counts(stats: Any) -> dict[str, int]:
    """How many dependences of each kind a ggc_plan_stats tells."""
    return {name: int(stats.hazards[number]) for number, name in _HAZARDS.items()}


def _stats_of(plan: Any, n_nodes: int) -> PlanStats:
    s = lib.ggc_plan_get_stats(lib.ggc_graph_plan_core(plan))
    adapter, core = ffi.new("double *"), ffi.new("double *")
    lib.ggc_graph_plan_times(plan, adapter, core)
    return PlanStats(
        n_nodes,
        s.n_units,
        s.n_phases,
        s.width,
        s.n_streams,
        s.n_deps,
        s.n_waits,
        hazard_counts(s),
        s.cost,
        s.critical,
        adapter[0],
        core[0],
    )


def _labels_of(graph: Any, n_nodes: int) -> list[str]:
    labels = []
    for i in range(n_nodes):
        node = ggml.ggml_graph_node(graph, i)
        op = ffi.string(ggml.ggml_op_desc(node)).decode()
        labels.append(f"{op} {ffi.string(node.name).decode('utf-8', 'replace')!r}")
    return labels


def copy_plan(plan: Any, graph: Any) -> Plan:
    """A Plan with copies of all that a ggc_graph_plan of this ggml_cgraph holds."""
    n_nodes = lib.ggc_graph_plan_n_nodes(plan)
    proof = Proof(lib.ggc_graph_plan_units(plan))
    units = _units_of(plan, proof.n_units)
    return Plan(
        _phases_of(plan, n_nodes),
        _streams_of(lib.ggc_graph_plan_core(plan), units),
        units,
        _stats_of(plan, n_nodes),
        _labels_of(graph, n_nodes),
        deps_of(lib.ggc_graph_plan_core(plan), proof.n_units),
        proof,
    )


#
# Finding
#


def _graph_at(graph: Graph | int) -> Any:
    """The ggml_cgraph of a Graph, or the one at an address, checked."""
    if isinstance(graph, Graph):
        graph._check_whole()
        return graph._graph
    if not isinstance(graph, int) or isinstance(graph, bool):
        raise TypeError(f"expected a Graph or an address (int), got {type(graph).__name__}")
    if not 0 < graph < 1 << (8 * ffi.sizeof("void *")):
        raise PlanError(f"{graph:#x} is no address")
    pointer = ffi.cast("struct ggml_cgraph *", graph)
    message = ffi.new("char[]", 512)
    if lib.ggc_graph_check(pointer, message, len(message)) != lib.GGC_OK:
        raise PlanError(
            f"{graph:#x}: {message_of(message)}. Only a ggml_cgraph of the layout of ggml "
            f"{message_of(ggml.ggml_version())} can be planned."
        )
    return pointer


def find_concurrency(
    graph: Graph | int,
    streams: int = 2,
    fuse: str = "none",
    strategy: str = "list",
) -> Plan:
    """Finds which nodes of a graph may run at the same time, and places them on streams.

    Args:
        graph: a Graph, or the address of a ggml_cgraph of another library, whose ggml must lay its
            structs out as ours does.  It is not changed, and not needed afterwards.
        streams: at most this many.
        fuse: which nodes stay together because a backend may compute them in one kernel: "none",
            "cpu", "cuda" or "metal".  Their units may hold views that stand between such nodes.
        strategy: "list" (critical path first), "levels" (phase by phase), "cover" (fewest waits at
            full concurrency, for up to 32768 units) or "serial".

    Raises:
        PlanError: there is no readable graph at the address, or it cannot be planned.
    """
    params = ffi.new("struct ggc_graph_params *")
    lib.ggc_graph_params_init(params)
    params.plan.n_streams = count(streams, 1, lib.GGC_MAX_STREAMS, "streams")
    params.plan.strategy = strategy_of(strategy)
    params.fuse = fuse_of(fuse)
    pointer = _graph_at(graph)
    out = ffi.new("struct ggc_graph_plan **")
    status = lib.ggc_graph_plan_new(pointer, params, out)
    if status == lib.GGC_E_INVALID:
        raise PlanError("this graph cannot be planned: ggml never lays tensors out like this")
    raise_status(status, "", "find_concurrency")
    try:
        return copy_plan(out[0], pointer)
    finally:
        lib.ggc_graph_plan_free(out[0])
