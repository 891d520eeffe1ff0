"""Results as JSON with a versioned schema: {"format": ..., "version": ..., "results": {...}}.

The fields are those of the classes in `results`, under their names.
"""

from __future__ import annotations

import dataclasses
import json
import types
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from ..errors import FormatError
from .candidates import CANDIDATES
from .results import COMPLETE, FAILED, INTERRUPTED, Measured, Results

FORMAT = "ggml-concurrent bench"
VERSION = 2


def dump(results: Results) -> str:
    """The results as JSON text."""
    document = {"format": FORMAT, "version": VERSION, "results": dataclasses.asdict(results)}
    return json.dumps(document, indent=1) + "\n"


def load(text: str | bytes) -> Results:
    """The results in a text of dump().

    Raises:
        FormatError: the text is none; names the field.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not JSON: {error}") from None
    _object(document, "the document", {"format", "version", "results"})
    if document["format"] != FORMAT:
        _fail("format", repr(FORMAT), document["format"])
    if document["version"] != VERSION or isinstance(document["version"], bool):
        _fail("version", f"{VERSION}, the one that this release reads", document["version"])
    results: Results = _read(Results, document["results"], "results")
    _check(results)
    return results


def load_file(path: Path) -> Results:
    """The results in a file; FormatError names it."""
    try:
        return load(path.read_bytes())
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None


#
# Reading: nothing in a file is believed. `where` names the field that an error is about.
#


def _fail(where: str, expected: str, value: Any) -> NoReturn:
    text = repr(value)
    raise FormatError(f"{where}: expected {expected}, got {text[:60] + '...' * (len(text) > 60)}")


def _object(value: Any, where: str, keys: set[str]) -> None:
    if not isinstance(value, dict):
        _fail(where, "an object", value)
    for key in sorted(keys - set(value)):
        raise FormatError(f"{where}: {key!r} is missing")
    for key in sorted(set(value) - keys):
        raise FormatError(f"{where}: {key!r} is unknown")


def _read(kind: Any, value: Any, where: str) -> Any:
    """A value of a type: a class of `results`, a list, tuple, dict, number, text, or None."""
    if isinstance(kind, types.UnionType):
        return None if value is None else _read(get_args(kind)[0], value, where)
    if dataclasses.is_dataclass(kind):
        return _read_class(kind, value, where)
    origin = get_origin(kind)
    if origin in (list, tuple):
        if not isinstance(value, list):
            _fail(where, "a list", value)
        return origin(_read(get_args(kind)[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            _fail(where, "an object", value)
        return {k: _read(get_args(kind)[1], v, f"{where}.{k}") for k, v in value.items()}
    return _read_plain(kind, value, where)


def _read_class(kind: Any, value: Any, where: str) -> Any:
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    _object(value, where, set(names))
    return kind(**{name: _read(hints[name], value[name], f"{where}.{name}") for name in names})


def _read_plain(kind: Any, value: Any, where: str) -> Any:
    if kind is str:
        if not isinstance(value, str):
            _fail(where, "a text", value)
        return value
    if kind is bool:
        if not isinstance(value, bool):
            _fail(where, "true or false", value)
        return value
    whole = kind is int
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < 2**62:  # nor infinite, nor NaN
        _fail(where, f"a {'whole ' * whole}number, 0 or more", value)
    return kind(value)


#
# What the types do not say
#


def _check(results: Results) -> None:
    if results.state not in (COMPLETE, INTERRUPTED, FAILED):
        _fail("results.state", f"{COMPLETE}, {INTERRUPTED} or {FAILED}", results.state)
    settings = results.settings
    for name in ("runs", "processes", "streams", "threads"):
        if getattr(settings, name) < 1:
            _fail(f"results.settings.{name}", "1 or more", getattr(settings, name))
    for name in ("graphs", "candidates"):
        if not getattr(settings, name):
            _fail(f"results.settings.{name}", "at least one", [])
    for g, graph in enumerate(results.graphs):
        seen: set[str] = set()
        for m, measured in enumerate(graph.measured):
            where = f"results.graphs[{g}].measured[{m}]"
            if measured.candidate not in CANDIDATES or measured.candidate in seen:
                _fail(f"{where}.candidate", "a known one that is not yet there", measured.candidate)
            seen.add(measured.candidate)
            _check_times(measured, where)


def _check_times(measured: Measured, where: str) -> None:
    if not measured.processes:
        _fail(f"{where}.processes", "at least one", measured.processes)
    for p, process in enumerate(measured.processes):
        if not process.times_ms or min(process.times_ms) <= 0:
            times = process.times_ms
            _fail(f"{where}.processes[{p}].times_ms", "at least one, all above 0", times)
