"""Graphs as they are named on the command line: NAME, or NAME@tokens=8,past=8191,dtype=f16."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..dtypes import dtype_of
from ..errors import Error, GraphError
from ..zoo import GRAPHS, Entry
from .candidates import check_graphs, kind_of
from .results import Settings


@dataclass(frozen=True)
class Asked:
    """A graph that was asked for.

    Attributes:
        entry: of the zoo.
        build: arguments of `zoo.build` that its name brings along.
    """

    entry: Entry
    build: dict[str, Any]


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) < 2**31:
            raise ValueError(f"a whole number, {least} or more")
        return int(text)

    return read


def _dtype(text: str) -> str:
    try:
        return dtype_of(text).name
    except GraphError as error:
        raise ValueError(f"a type; {error}") from None


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("0 or 1")
    return text == "1"


# Name on the command line -> argument of zoo.build, and how it is read.
_ARGUMENTS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "tokens": ("n_tokens", _whole(1)),
    "past": ("n_past", _whole(0)),
    "dtype": ("dtype", _dtype),
    "flash": ("flash_attn", _switch),
}


def read(text: str) -> Asked:
    """The graph of that name. Raises Error if there is none, or for an argument that is wrong."""
    name, at, arguments = text.partition("@")
    check_graphs([name])
    build: dict[str, Any] = {}
    for part in arguments.split(",") if at else ():
        key, _, value = part.partition("=")
        if key not in _ARGUMENTS:
            raise Error(f"{text}: no argument {key!r}; there are: {', '.join(_ARGUMENTS)}")
        target, convert = _ARGUMENTS[key]
        if target in build:
            raise Error(f"{text}: {key!r} is named twice")
        try:
            build[target] = convert(value)
        except ValueError as error:
            raise Error(f"{text}: {key} is {value!r}, expected {error}") from None
    return Asked(GRAPHS[name], build)


def check(names: Iterable[str]) -> None:
    """Raises Error unless all can be built."""
    for name in names:
        read(name)


def build_arguments(settings: Settings, name: str) -> dict[str, Any]:
    """Arguments of `zoo.build`: what all graphs were asked for with, and what this one was.

    On CUDA attention is one operation unless it was asked for otherwise, as in llama.cpp.
    """
    given = {
        "flash_attn": True if kind_of(settings.device) == "cuda" else None,
        "dtype": settings.dtype,
        "n_tokens": settings.n_tokens,
        "n_past": settings.n_past,
    }
    return {
        "device": settings.device,
        **{key: value for key, value in given.items() if value is not None},
        **read(name).build,
    }
