"""Every operation of ggml is in the table of accesses, and in the catalogue of samples."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from op_arena import declared_for
from op_samples import NOT_SAMPLED, SAMPLES, Bench, Sample

import ggml_concurrent as ggc
from ggml_concurrent._native import ffi, lib

TABLE = Path(__file__).parents[2] / "csrc" / "ggml" / "ops.def"
FENCES = {"MAP_CUSTOM1", "MAP_CUSTOM2", "MAP_CUSTOM3", "CUSTOM"}


def constants(enum: str, prefix: str) -> set[str]:
    """The values of an enum of ggml.h, as the compiler knows them, without what only counts."""
    names = ffi.typeof(f"enum {enum}").relements
    return {n.removeprefix(prefix) for n in names} - {"COUNT"}


def entries() -> list[tuple[str, str]]:
    """The table's entries: kind and operation."""
    text = TABLE.read_text(encoding="utf-8")
    return re.findall(r"^([A-Z]+)\((\w+)", text, re.MULTILINE)


OPERATIONS = constants("ggml_op", "GGML_OP_")


def test_the_table_has_each_operation_once() -> None:
    names = [op for _, op in entries()]
    assert sorted(names) == sorted(OPERATIONS)


def test_user_code_is_a_fence_and_nothing_else_is() -> None:
    assert {op for kind, op in entries() if kind == "FENCE"} == FENCES


def test_each_operation_is_sampled_or_listed() -> None:
    sampled = {s.op.partition(":")[0] for s in SAMPLES}
    assert sampled | set(NOT_SAMPLED) == OPERATIONS
    assert not sampled & set(NOT_SAMPLED)


@pytest.mark.parametrize("family", ["UNARY", "GLU"])
def test_each_operation_of_a_family_is_sampled(family: str) -> None:
    sampled = {s.op.partition(":")[2] for s in SAMPLES if s.op.startswith(f"{family}:")}
    assert sampled == constants(f"ggml_{family.lower()}_op", f"GGML_{family}_OP_")


def test_samples_have_names_of_their_own() -> None:
    names = [s.id for s in SAMPLES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("sample", [s for s in SAMPLES if not s.heavy], ids=lambda s: s.id)
def test_a_sample_is_of_the_operation_that_it_names(sample: Sample) -> None:
    op, _, kind = sample.op.partition(":")
    with Bench(sample) as bench:
        node = bench.node._ptr
        assert node.op == getattr(lib, f"GGML_OP_{op}")
        if kind:
            assert node.op_params[0] == getattr(lib, f"GGML_{op}_OP_{kind}")


#
# What is not in the table
#


@pytest.mark.parametrize(
    "number", [lib.GGML_OP_COUNT, lib.GGML_OP_COUNT + 1, 1000, 2**31 - 1, 2**32 - 1]
)
def test_an_operation_that_the_table_does_not_know_is_a_fence(number: int) -> None:
    with ggc.Graph() as graph:
        node = graph.expand(graph.sqr(graph.input("x", "f32", (8,))))
        assert not declared_for(graph, node).fence
        node._ptr.op = number
        assert declared_for(graph, node).fence


@pytest.mark.parametrize("op", sorted(FENCES))
def test_user_code_may_touch_anything(op: str) -> None:
    with ggc.Graph() as graph:
        node = graph.expand(graph.sqr(graph.input("x", "f32", (8,))))
        node._ptr.op = getattr(lib, f"GGML_OP_{op}")
        assert declared_for(graph, node).fence
