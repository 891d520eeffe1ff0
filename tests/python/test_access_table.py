"""The table of what each operation reads and writes, proven against ggml's CPU backend.

Planner and verifier both start from csrc/ggml/ops.def, so neither can find a mistake in it.  Here
each sample of op_samples is computed by plain ggml in memory of which every byte is known:

  writes  no byte outside of the declared writes has changed, between the tensors neither;
  reads   what was written is the same whatever stood in the bytes outside of the declared reads.

The other tests prove that this check can fail: an access is left out of the declared ones, or cut
in half, and the check has to say so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from op_arena import Access, address_of, shown_by
from op_samples import MISREAD, SAMPLES, Bench, Sample

from ggml_concurrent._native import ffi

VIEWS = ("RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE")
LIGHT = [s for s in SAMPLES if not s.heavy]


#
# What stands in the bytes that an operation is not declared to read
#


def _random(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, n, np.uint8)


def _moderate(n: int) -> np.ndarray:
    """Floats, of 16 as of 32 bits, that are neither large nor NaN."""
    memory = _random(n)
    memory[1::2] = memory[1::2] & 0x83 | 0x38
    return memory


# A float that is not a number spreads in sums, zero is lost in them: no one poison shows all.
POISONS: tuple[Callable[[int], np.ndarray], ...] = (
    _random,
    lambda n: np.zeros(n, np.uint8),
    lambda n: np.full(n, 0xFF, np.uint8),  # NaN as any float, -1 as any integer
    _moderate,
)


def _poisoned(bench: Bench, reads: np.ndarray, kind: int) -> np.ndarray:
    """The memory before a run: values in the declared reads, poison everywhere else.

    Integers choose rows, and an arbitrary one would end the process: where they are not declared,
    other valid ones are put.
    """
    memory = POISONS[kind](bench.content.size)
    integers = bench.other if kind % 2 else bench.content
    memory[bench.integers] = integers[bench.integers]
    memory[reads] = bench.content[reads]
    return memory


#
# The check
#


def _mask(bench: Bench, accesses: Sequence[Access], *, writes: bool) -> np.ndarray:
    mask = np.zeros(bench.content.size, bool)
    for access in accesses:
        if access.writes == writes:
            access.mark(mask, bench.arena.base)
    return mask


def problems(
    bench: Bench, accesses: Sequence[Access], kinds: Sequence[int] = range(4), threads: int = 2
) -> Iterator[str]:
    """What contradicts the claim that the node touches what `accesses` say; nothing is a proof."""
    every = [*accesses, *bench.around]
    reads, writes = (_mask(bench, every, writes=w) for w in (False, True))
    first = None
    for kind in kinds:
        before = _poisoned(bench, reads, kind)
        after = bench.run(before, threads)
        stray = np.flatnonzero((before != after) & ~writes)
        if stray.size:
            yield f"wrote {stray.size} bytes that are not declared, the first at {stray[0]}"
        if first is None:
            first = (before, after)
            continue
        left_alone = (before == after) & (first[0] == first[1])
        differ = np.flatnonzero((after != first[1]) & ~left_alone & writes)
        if differ.size:
            yield f"{differ.size} bytes depend on undeclared ones, the first at {differ[0]}"


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with Bench(request.param) as opened:
        yield opened


def each(samples: Sequence[Sample]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("bench", samples, indirect=True, ids=lambda s: s.id)


#
# The table
#


@each(LIGHT)
def test_nothing_else_is_read_or_written(bench: Bench) -> None:
    assert not bench.fence
    assert list(problems(bench, bench.accesses)) == []


@each([s for s in SAMPLES if s.op in VIEWS])
def test_views_touch_nothing(bench: Bench) -> None:
    assert bench.accesses == []


#
# The check can fail
#

IN_PLACE = "the result lies there, and the bytes that matter stay as they are"

# Samples with declared accesses half of which can be left out unnoticed: source or "result" -> why.
SPARE: dict[str, dict[int | str, str]] = {
    "DIAG_MASK_INF-inplace": {0: IN_PLACE},
    "DIAG_MASK_ZERO-inplace": {0: IN_PLACE},
    "SET-inplace": {0: IN_PLACE},
    "SET-1d-inplace": {0: IN_PLACE, "result": "only a part is set, and which one no view tells"},
    "DUP-inplace": {0: IN_PLACE, "result": "a copy onto itself"},
    "MUL_MAT-hadamard": {0: "the kernel knows the matrix"},
    "POOL_2D_BACK-avg": {1: "only the gradient of a maximum depends on the image"},
}


def _half(access: Access) -> list[Access]:
    if access.count > 1:
        return [dataclasses.replace(access, count=access.count // 2)]
    return [dataclasses.replace(access, run=access.run // 2)]


def _role(bench: Bench, access: Access) -> int | str:
    """The source that a declared access is for, or "result"."""
    if access.writes:
        return "result"
    sources = [t for t in bench.node._ptr.src if t != ffi.NULL]
    return next(i for i, t in enumerate(sources) if address_of(t.data) == access.address)


@each([s for s in LIGHT if s.op not in VIEWS])
def test_half_an_access_is_too_little(bench: Bench) -> None:
    """For each declared access: without its second half the check must find a problem."""
    assert bench.accesses
    unnoticed = set()
    for access in bench.accesses:
        others = [a for a in bench.accesses if a != access]
        less = [*others, *_half(access)]
        if next(problems(bench, less, kinds=(2, 3, 1), threads=1), None) is None:
            unnoticed.add(_role(bench, access))
    assert unnoticed == set(SPARE.get(bench.sample.id, ()))


#
# Views that kernels misread
#

# Sources that the operation writes, beside its result.
WRITTEN_SOURCES = {"OPT_STEP_ADAMW": (0, 2, 3), "OPT_STEP_SGD": (0,)}


def _shown(bench: Bench) -> list[Access]:
    """What the views of the node show: what an exact table would declare."""
    node = bench.node._ptr
    shown = list(shown_by(node, writes=True))
    for i, source in enumerate(node.src):
        if source != ffi.NULL and bench.arena.holds(source):
            shown += shown_by(source, writes=False)
            if i in WRITTEN_SOURCES.get(bench.sample.op, ()):
                shown += shown_by(source, writes=True)
    return shown


@each(MISREAD)
def test_a_misread_view_makes_a_fence(bench: Bench) -> None:
    """Where a kernel touches bytes that its views do not show, nothing else may run beside it."""
    assert bench.fence


@each(MISREAD)
def test_a_view_that_makes_a_fence_is_misread(bench: Bench) -> None:
    assert next(problems(bench, _shown(bench), threads=1), None) is not None
