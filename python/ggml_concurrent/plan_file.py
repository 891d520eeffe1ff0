"""Plans as files: JSON with a versioned schema, and DOT for graphviz.

A plan file is one JSON object:

    {"format": "ggml-concurrent plan", "version": 1,
     "nodes":   ["MUL_MAT 'q'", ...],                  what a reader sees of each node
     "units":   [{"nodes": [3], "cost": 1.5, "fence": false,
                  "accesses": [["r", region, offset, run, stride, count], ...]}, ...],
     "phases":  [[0, 1], [2], ...],                    nodes
     "streams": [[{"unit": 0, "waits": []}, ...], ...]}

Costs are microseconds.  A region is a range of memory whose accesses overlap; regions are numbered
in the order in which they are met, offsets count from their first byte, and reads of what nobody
writes (weights) are left out: equal graphs give equal files on every machine, wherever their
tensors lie.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from ._native import ffi, lib, raise_status
from .errors import FormatError
from .plan import Access, Plan, PlanStats, Proof, Step, deps_of, hazard_counts

__all__ = ["dot", "dump", "load"]

FORMAT = "ggml-concurrent plan"
VERSION = 1
_MODES = {"r": lib.GGC_READ, "w": lib.GGC_WRITE}
_LETTERS = {number: letter for letter, number in _MODES.items()}
_U32, _U64, _MAX_ITEMS = 2**32 - 1, 2**64 - 1, 2**24


#
# Writing
#


def dump(plan: Plan) -> str:
    """The plan as JSON text, the same for equal plans; one line a unit, phase and stream."""
    units = _dump_units(plan)
    streams = [[{"unit": s.unit, "waits": list(s.waits)} for s in steps] for steps in plan.streams]
    parts = {"nodes": plan.labels, "units": units, "phases": plan.phases, "streams": streams}
    head = f'{{"format": {json.dumps(FORMAT)}, "version": {VERSION}'
    return head + "".join(f',\n "{key}": {_lines(items)}' for key, items in parts.items()) + "}\n"


def _lines(items: Sequence[Any]) -> str:
    return "[" + ",\n  ".join(json.dumps(item) for item in items) + "]"


class _Place(NamedTuple):
    """Where a region of overlapping accesses begins, and whether any of them writes."""

    buffer: int
    begin: int
    written: bool


def _end(a: Access) -> int:
    return a.offset + a.run + (a.count - 1) * a.stride if a.count > 1 else a.offset + a.run


def _places(accesses: Sequence[Access]) -> dict[Access, _Place]:
    """For each access the region of bytes that it is connected to through others."""
    places: dict[Access, _Place] = {}
    region: list[Access] = []
    buffer, end = -1, 0

    def close() -> None:
        if region:
            written = any(a.mode == lib.GGC_WRITE for a in region)
            place = _Place(buffer, min(a.offset for a in region), written)
            places.update(dict.fromkeys(region, place))
        region.clear()

    for a in sorted(accesses, key=lambda a: (a.buffer, a.offset)):
        if a.buffer != buffer or a.offset >= end:
            close()
            buffer, end = a.buffer, 0
        region.append(a)
        end = max(end, _end(a))
    close()
    return places


def _dump_units(plan: Plan) -> list[dict[str, Any]]:
    proof = plan.proof
    accesses = [proof.accesses(u) for u in range(proof.n_units)]
    places = _places([a for unit in accesses for a in unit])
    number: dict[_Place, int] = {}

    def row(a: Access) -> list[Any]:
        region = number.setdefault(places[a], len(number))
        offset = a.offset - places[a].begin
        return [_LETTERS[a.mode], region, offset, a.run, a.stride if a.count > 1 else 0, a.count]

    return [
        {
            "nodes": list(nodes),
            "cost": round(proof.cost(u), 6),
            "fence": proof.is_fence(u),
            "accesses": [row(a) for a in accesses[u] if places[a].written],
        }
        for u, nodes in enumerate(plan.units)
    ]


def dot(plan: Plan) -> str:
    """The dependences of the units as a graph for graphviz's `dot`, a cluster for each phase."""
    unit_of = {node: u for u, nodes in enumerate(plan.units) for node in nodes}
    stream_of = {s.unit: i for i, steps in enumerate(plan.streams) for s in steps}
    lines = ["digraph plan {", "  rankdir=TB; node [shape=box, fontsize=10];"]
    for i, phase in enumerate(plan.phases):
        members = sorted({unit_of[node] for node in phase if node in unit_of})
        lines.append(f'  subgraph cluster_{i} {{ label="phase {i}"; fontsize=9; color=gray;')
        for u in members:
            rows = [*(plan.labels[node] for node in plan.units[u]), f"stream {stream_of[u]}"]
            lines.append(f"    u{u} [label={_quoted(rows)}];")
        lines.append("  }")
    lines += [f"  u{dep} -> u{u};" for u, deps in enumerate(plan.deps) for dep in deps]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(rows: Sequence[str]) -> str:
    escaped = (row.replace("\\", "\\\\").replace('"', '\\"') for row in rows)
    return '"' + "\\n".join(escaped) + '"'


#
# Reading: nothing in a file is believed. `where` names the field that an error is about.
#


def _fail(where: str, expected: str, value: Any) -> NoReturn:
    text = repr(value)
    raise FormatError(f"{where}: expected {expected}, got {text[:60] + '...' * (len(text) > 60)}")


def _integer(value: Any, where: str, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= high:
        _fail(where, f"an integer from 0 to {high}", value)
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > _MAX_ITEMS:
        _fail(where, f"a list of at most {_MAX_ITEMS} items", value)
    return value


def _integers(value: Any, where: str, high: int) -> list[int]:
    return [_integer(v, f"{where}[{i}]", high) for i, v in enumerate(_list(value, where))]


def _object(value: Any, where: str, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != keys:
        _fail(where, f"an object with {', '.join(sorted(keys))}", value)
    return value


def load(text: str | bytes) -> Plan:
    """The plan in a JSON text. The units and their accesses are planned again for the statistics;
    the phases and streams are those of the file, to be verified by whoever needs them to be right.

    Raises:
        FormatError: the text is no plan; names the field.
    """
    try:
        data = json.loads(text, parse_constant=lambda name: _fail("number", "a finite one", name))
    except (ValueError, RecursionError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"not JSON: {error}") from None
    keys = {"format", "version", "nodes", "units", "phases", "streams"}
    plan = _object(data, "plan", keys)
    if plan["format"] != FORMAT:
        _fail("format", repr(FORMAT), plan["format"])
    if plan["version"] != VERSION or isinstance(plan["version"], bool):
        _fail("version", f"{VERSION}, the one that this release reads", plan["version"])
    labels = _list(plan["nodes"], "nodes")
    for i, label in enumerate(labels):
        if not isinstance(label, str):
            _fail(f"nodes[{i}]", "a text", label)
    units, proof = _read_units(plan["units"], len(labels))
    phases = _read_phases(plan["phases"], len(labels))
    streams = _read_streams(plan["streams"], units)
    stats, deps = _replan(proof, len(labels), phases, streams)
    return Plan(phases, streams, units, stats, labels, deps, proof)


def _read_units(value: Any, n_nodes: int) -> tuple[list[tuple[int, ...]], Proof]:
    units: list[tuple[int, ...]] = []
    rows: list[list[Access]] = []
    fences: list[bool] = []
    costs: list[float] = []
    taken: set[int] = set()
    for u, item in enumerate(_list(value, "units")):
        where = f"units[{u}]"
        unit = _object(item, where, {"nodes", "cost", "fence", "accesses"})
        nodes = _integers(unit["nodes"], f"{where}.nodes", max(n_nodes - 1, 0))
        if not nodes or not n_nodes or nodes != sorted(set(nodes)) or taken.intersection(nodes):
            _fail(f"{where}.nodes", "ascending nodes that no other unit has", nodes)
        taken.update(nodes)
        if not isinstance(unit["fence"], bool):
            _fail(f"{where}.fence", "true or false", unit["fence"])
        cost = unit["cost"]
        if not isinstance(cost, int | float) or isinstance(cost, bool) or not 0 <= cost < 1e300:
            _fail(f"{where}.cost", "microseconds, 0 or more", cost)
        units.append(tuple(nodes))
        fences.append(unit["fence"])
        costs.append(float(cost))
        rows.append(_read_accesses(unit["accesses"], f"{where}.accesses"))
    return units, Proof.of(rows, fences, costs)


def _read_accesses(value: Any, where: str) -> list[Access]:
    rows = []
    for i, item in enumerate(_list(value, where)):
        here = f"{where}[{i}]"
        fields = _list(item, here)
        if len(fields) != 6 or not isinstance(fields[0], str) or fields[0] not in _MODES:
            _fail(here, '["r" or "w", region, offset, run, stride, count]', fields)
        limits = {"region": _U32, "offset": _U64, "run": _U64, "stride": _U64, "count": _U32}
        numbers = [
            _integer(fields[k], f"{here}.{name}", high)
            for k, (name, high) in enumerate(limits.items(), start=1)
        ]
        rows.append(Access(_MODES[fields[0]], *numbers))
    return rows


def _read_phases(value: Any, n_nodes: int) -> list[list[int]]:
    phases = [
        _integers(phase, f"phases[{i}]", max(n_nodes - 1, 0))
        for i, phase in enumerate(_list(value, "phases"))
    ]
    if sorted(node for phase in phases for node in phase) != list(range(n_nodes)):
        raise FormatError(f"phases: expected each of the {n_nodes} nodes once")
    return phases


def _read_streams(value: Any, units: list[tuple[int, ...]]) -> list[list[Step]]:
    streams = _list(value, "streams")
    if len(streams) > lib.GGC_MAX_STREAMS:
        raise FormatError(f"streams: at most {lib.GGC_MAX_STREAMS}, got {len(streams)}")
    last = max(len(units) - 1, 0)
    result = []
    for s, steps in enumerate(streams):
        row = []
        for i, item in enumerate(_list(steps, f"streams[{s}]")):
            where = f"streams[{s}][{i}]"
            step = _object(item, where, {"unit", "waits"})
            unit = _integer(step["unit"], f"{where}.unit", last)
            waits = _integers(step["waits"], f"{where}.waits", last)
            row.append(Step(unit, units[unit] if units else (), tuple(waits)))
        result.append(row)
    if sorted(s.unit for steps in result for s in steps) != list(range(len(units))):
        raise FormatError(f"streams: expected each of the {len(units)} units once")
    return result


def _replan(
    proof: Proof, n_nodes: int, phases: list[list[int]], streams: list[list[Step]]
) -> tuple[PlanStats, list[tuple[int, ...]]]:
    """Statistics and dependences, found from the accesses alone."""
    out = ffi.new("struct ggc_plan **")
    status = lib.ggc_plan_new(proof.pointer, ffi.NULL, out)
    if status == lib.GGC_E_INVALID:
        raise FormatError("units: an access whose runs overlap or that reaches beyond 2^64 bytes")
    raise_status(status, "", "load_plan")
    try:
        s = lib.ggc_plan_get_stats(out[0])
        stats = PlanStats(
            n_nodes=n_nodes,
            n_units=s.n_units,
            n_phases=len(phases),
            width=s.width,
            n_streams=sum(1 for steps in streams if steps),
            n_deps=s.n_deps,
            n_waits=sum(len(step.waits) for steps in streams for step in steps),
            hazards=hazard_counts(s),
            cost=s.cost,
            critical=s.critical,
            adapter_seconds=0.0,
            core_seconds=0.0,
        )
        return stats, deps_of(out[0], s.n_units)
    finally:
        lib.ggc_plan_free(out[0])
