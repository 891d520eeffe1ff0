"""The table of what each operation reads and writes, proven against ggml's CPU backend.

Planner and verifier both start from csrc/ggml/ops.def, so neither can find a mistake in it.  Here
each sample of op_samples is computed by plain ggml in memory of which every byte is known:

  writes  no byte outside of the declared writes has changed;
  reads   what was written is the same whatever stood in the bytes outside of the declared reads.

The other tests prove that this check can fail: an access is taken out of the declared ones, or cut
short, and the check must say so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from op_arena import Access
from op_samples import SAMPLES, Bench, Sample

THREADS = 2

# What stands in the bytes that an operation is not declared to read: a byte, or None: random ones.
# 0xFF in every byte is a NaN in each type of float, and -1.
POISONS = (None, None, 0xFF, 0x00)


def mask_of(bench: Bench, accesses: Sequence[Access], *, writes: bool) -> np.ndarray:
    mask = np.zeros(bench.content.size, bool)
    for access in accesses:
        if access.writes == writes:
            access.mark(mask, bench.arena.base)
    return mask


def _poisoned(bench: Bench, reads: np.ndarray, poison: int | None, seed: int) -> np.ndarray:
    """The memory before a run: values in the declared reads, something else everywhere else.

    Integers choose rows, and an arbitrary number would end the process: where they are not
    declared they are replaced by others that are as valid.
    """
    if poison is None:
        memory = np.random.default_rng(seed).integers(0, 256, bench.content.size, np.uint8)
    else:
        memory = np.full(bench.content.size, poison, np.uint8)
    chosen = bench.other if seed % 2 else bench.content
    memory[bench.integers] = chosen[bench.integers]
    memory[reads] = bench.content[reads]
    return memory


def problems(bench: Bench, accesses: Sequence[Access], n_runs: int = len(POISONS)) -> list[str]:
    """What contradicts the claim that the node touches what `accesses` say. [] is a proof."""
    every = [*accesses, *bench.around]
    reads, writes = (mask_of(bench, every, writes=w) for w in (False, True))
    found = []
    runs = []
    for seed, poison in enumerate(POISONS[:n_runs]):
        before = _poisoned(bench, reads, poison, seed)
        after = bench.run(before, THREADS)
        stray = np.flatnonzero((before != after) & ~writes)
        if stray.size:
            found.append(f"wrote {stray.size} undeclared bytes, the first at {stray[0]}")
        runs.append((before, after))
    before, after = runs[0]
    for other_before, other_after in runs[1:]:
        untouched = (before == after) & (other_before == other_after)
        differ = np.flatnonzero((after != other_after) & ~untouched & writes)
        if differ.size:
            found.append(f"{differ.size} bytes depend on undeclared ones, the first at {differ[0]}")
    return found


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with Bench(request.param) as opened:
        opened.run(opened.content, threads=1)  # where ggml refuses, this raises instead of ending
        yield opened


def each(samples: Sequence[Sample]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("bench", samples, indirect=True, ids=lambda s: s.id)


@each(SAMPLES)
def test_table_is_right(bench: Bench) -> None:
    assert problems(bench, bench.accesses) == []
