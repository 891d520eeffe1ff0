"""Calls builders with wrong arguments. Run as a program by test_misuse.py, in a process of its own.

    misuse.py LOG SEED CALLS OP...

Each call is written to LOG before it is made, so that a crash can be attributed.  Prints one line
for each call that neither built a tensor nor raised an exception of ours or a TypeError.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from recipes import right_arguments

import ggml_concurrent as ggc
from ggml_concurrent._ops import ENUMS, SPECS

# What does not fit anywhere, or hardly.
STRANGE = [
    None,
    "f33",
    b"x",
    3.5,
    float("nan"),
    float("inf"),
    True,
    -1,
    0,
    7,
    2**31 - 1,
    -(2**31),
    2**40,
    2**62,
    2**63,
    -(2**63),
    2**100,
    [],
    [1, 2],
    [1, 2, 3, 4],
    [-1, 0, 2**70, "x"],
    {},
    np.zeros((2, 3), np.float32),
    np.float32(1),
    np.int64(2),
    object(),
]


class World:
    """Tensors of many kinds to build with, and some that must be refused."""

    def __init__(self) -> None:
        self.store = ggc.Store()
        self.graph = ggc.Graph(size=65536)
        self.other = ggc.Graph()
        self.closed_store = ggc.Store()
        self.good = list(self._good())
        self.bad = list(self._bad())

    def _good(self) -> Iterator[ggc.Tensor]:
        g, s = self.graph, self.store
        shapes: dict[str, list[tuple[int, ...]]] = {
            "f32": [(8,), (8, 8), (8, 4), (4, 8), (8, 8, 2), (8, 2, 3, 2), (1,), (6, 6, 2, 2)],
            "f16": [(8, 8), (8, 2, 3, 2), (3, 3, 2, 2), (8,)],
            "i32": [(8,), (4,), (3,), (8, 4), (1,)],
        }
        for dtype, sizes in shapes.items():
            for i, ne in enumerate(sizes):
                yield g.input(f"{dtype}_{i}", dtype, ne)
        yield g.input("i64", "i64", (4,))
        yield g.input("i8", "i8", (8, 4))
        yield g.input("bf16", "bf16", (8, 8))
        yield g.input("q8_0", "q8_0", (256, 8))
        yield g.input("wide", "f32", (256, 4))
        yield s.zeros("q4_K", "q4_K", (256, 8))
        yield s.zeros("iq2_xxs", "iq2_xxs", (256, 2))
        yield s.zeros("q8_K", "q8_K", (256, 2))
        yield s.zeros("weight", "f32", (8, 8))
        matrix = g.input("matrix", "f32", (8, 6))
        yield g.transpose(matrix)
        yield g.permute(g.input("cube", "f32", (4, 6, 8)), 2, 0, 1, 3)
        yield g.view_2d(matrix, 4, 3, nb1=matrix.nb[1], offset=16)
        yield g.soft_max(g.input("scores", "f32", (8, 8, 4)))
        yield g.mul_mat(s["weight"], g.input("x", "f32", (8, 3)))

    def _bad(self) -> Iterator[ggc.Tensor]:
        yield self.other.input("x", "f32", (8, 8))
        yield self.closed_store.zeros("x", "f32", (8, 8))
        self.closed_store.close()
        closed = ggc.Graph()
        yield closed.input("x", "f32", (8, 8))
        closed.close()


_KINDS: dict[str, list[Any]] = {
    "f32": [0.0, 1.0, -1.0, 1e-6, 1e30, float("inf"), float("nan")],
    "bool": [True, False],
    "dtype": ["f32", "f16", "q4_K", "i32", 0, 99],
    "[4]": [[1, 1, 1, 1], [8, 4, 1, 1], [0, 0, 0, 0], [-1, 2, 3, 4], [2**40] * 4],
    "int": [0, *[1] * 8, *[2] * 5, 3, 4, 4, 8, 8, 16, 32, 64, -1, 2**31 - 1, 2**33],
}


def plausible(world: World, kind: str, dice: random.Random) -> Any:
    """An argument of the right kind, though hardly of the right value."""
    if kind.startswith("tensor"):
        return dice.choice(world.good if kind == "tensor" else [None, *world.good])
    if kind.startswith("enum "):
        return dice.choice([*ENUMS[kind[5:]], 0, 1, 2, 256, 9999])
    return dice.choice(_KINDS.get(kind[-3:] if kind.endswith("[4]") else kind, _KINDS["int"]))


def calls(
    world: World, op: str, dice: random.Random, n: int
) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Right arguments spoiled: wrong in number, in one place, or in several at random."""
    kinds = [kind for _, kind in SPECS[op]]
    right = right_arguments(world.graph, op)
    yield [], {}
    yield right[:-1], {}
    yield [*right, 1], {}
    yield right, {"no_such_parameter": 1}
    for place in range(len(kinds)):
        for value in [*STRANGE, *world.bad, *world.good]:
            yield [*right[:place], value, *right[place + 1 :]], {}
    for _ in range(n):
        yield (
            [
                plausible(world, kind, dice) if dice.random() < 0.5 else old
                for kind, old in zip(kinds, right, strict=True)
            ],
            {},
        )


def say(arguments: list[Any], named: dict[str, Any]) -> str:
    parts = [repr(a) for a in arguments] + [f"{k}={v!r}" for k, v in named.items()]
    return " ".join(", ".join(parts).split())


def attempt(call: Callable[[], Any]) -> tuple[str, Any]:
    """What came of a call: a built tensor, a refusal and its exception, or anything else."""
    try:
        result = call()
    except (ggc.Error, TypeError) as error:
        return ("refused", error) if str(error) else ("wrong", "an exception without a message")
    except Exception as error:  # noqa: BLE001  this is what the test looks for
        return "wrong", error
    return ("built", result) if isinstance(result, ggc.Tensor) else ("wrong", result)


def main(log_path: str, seed: str, n: str, *ops: str) -> int:
    built = refused = wrong = 0
    with Path(log_path).open("w", encoding="utf-8") as log:
        for op in ops:
            world = World()
            dice = random.Random(f"{seed} {op}")
            for arguments, named in calls(world, op, dice, int(n)):
                log.write(f"{op}({say(arguments, named)})\n")
                log.flush()
                method = getattr(world.graph, op)
                kind, what = attempt(lambda: method(*arguments, **named))  # noqa: B023
                built += kind == "built"
                refused += kind == "refused"
                if kind == "built":
                    kind, what = attempt(lambda: world.graph.expand(what))  # noqa: B023
                if kind == "wrong":
                    wrong += 1
                    print(f"{op}({say(arguments, named)}): {type(what).__name__}: {what}")
            log.write(f"find_concurrency of all that {op} built\n")
            log.flush()
            ggc.find_concurrency(world.graph).verify()
    print(f"{built} built, {refused} refused")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
