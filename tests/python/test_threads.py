"""Which operations of ggml's CPU backend give other bits with another number of threads.

A concurrent run shares its threads out between operations that run at once, except for those that
csrc/ggml/threads.c names: these get as many as a serial run gives them.  Here each sample is
computed with 1 to 4 threads, and what is named is what differs.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from op_samples import SAMPLES, Bench, Sample

import ggml_concurrent as ggc

SOURCE = Path(__file__).parents[2] / "csrc" / "ggml" / "threads.c"
NAMED = sorted(set(re.findall(r"case GGML_OP_(\w+):", SOURCE.read_text(encoding="utf-8"))))

# Named whatever its size, though with few rows the sum may come out the same.
ALWAYS = ("CROSS_ENTROPY_LOSS",)


def differs(bench: Bench) -> bool:
    """Whether some number of threads gives another result than one thread, bit by bit."""
    alone = bench.run(bench.content, threads=1)
    return any(not np.array_equal(alone, bench.run(bench.content, n)) for n in (2, 3, 4))


def is_named(bench: Bench) -> bool:
    """Whether the node gets all threads of a runner, though there is another that it could run at
    the same time as.
    """
    with ggc.Runner(bench.graph, streams=2, threads=4, strategy="levels", always=True) as runner:
        index = bench.graph.nodes.index(bench.node)
        units = [u for u, nodes in enumerate(runner.plan.units) if index in nodes]
        return [runner.unit_threads(u) for u in units] == [4]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.id)
def test_what_depends_on_the_number_of_threads_is_named(sample: Sample) -> None:
    with Bench(sample) as bench:
        if sample.op in NAMED and is_named(bench):
            assert differs(bench) or sample.op in ALWAYS
        else:
            assert not differs(bench)


@pytest.mark.parametrize("op", NAMED)
def test_an_operation_is_named_for_a_reason(op: str) -> None:
    for sample in [s for s in SAMPLES if s.op == op]:
        with Bench(sample) as bench:
            if is_named(bench) and differs(bench):
                return
    pytest.fail(f"no sample of {op} depends on the number of threads")


def test_no_other_operation_is_named() -> None:
    """An addition shares the threads: is_named() can say no."""
    with Bench(next(s for s in SAMPLES if s.id == "ADD-f32")) as bench:
        assert not is_named(bench)
    assert NAMED
