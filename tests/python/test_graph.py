"""Building graphs: tensors, order, names, limits."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from recipes import RECIPES, right_arguments

import ggml_concurrent as ggc
from ggml_concurrent import _native

# --- tensors -------------------------------------------------------------------------------------


def test_input_has_what_it_was_made_with(graph: ggc.Graph) -> None:
    x = graph.input("x", "f16", ne=(64, 8))
    assert (x.name, x.dtype, x.op) == ("x", "f16", "NONE")
    assert x.ne == (64, 8, 1, 1)
    assert x.nb == (2, 128, 1024, 1024)
    assert x.shape == (8, 64)
    assert x.nbytes == 1024
    assert x.is_contiguous
    assert not x.is_view
    assert x.view_src is None
    assert x.src == []


@pytest.mark.parametrize(
    ("ne", "shape"), [(5, (5,)), ((5,), (5,)), ((1, 1), (1,)), ((5, 1), (5,)), ((1, 5), (5, 1))]
)
def test_shape_is_ne_reversed_without_leading_ones(
    graph: ggc.Graph, ne: int | tuple[int, ...], shape: tuple[int, ...]
) -> None:
    assert graph.input("x", "f32", ne).shape == shape


@pytest.mark.parametrize("ne", [0, -1, (), (1, 2, 3, 4, 5), (2, 0), (2.0,), "8", (True,), None])
def test_impossible_ne_is_refused(graph: ggc.Graph, ne: object) -> None:
    with pytest.raises((ggc.GraphError, TypeError)):
        graph.input("x", "f32", ne)  # type: ignore[arg-type]


def test_rows_of_quantised_types_are_whole_blocks(graph: ggc.Graph) -> None:
    with pytest.raises(ggc.GraphError, match="multiple of 256, got 100"):
        graph.input("x", "q4_K", 100)


def test_tensor_larger_than_any_memory_is_refused(graph: ggc.Graph) -> None:
    with pytest.raises(ggc.GraphError, match="larger than any memory"):
        graph.input("x", "f32", (2**40, 2**20))


@pytest.mark.parametrize("dtype", ["F32", "f32", 0, np.float32, np.dtype("f4")])
def test_types_by_name_number_and_numpy(graph: ggc.Graph, dtype: ggc.DTypeLike) -> None:
    assert graph.input("x", dtype, 4).dtype == "f32"


@pytest.mark.parametrize("dtype", ["f33", 4, 31, -1, np.complex64, np.uint8])
def test_unknown_types_are_refused(graph: ggc.Graph, dtype: ggc.DTypeLike) -> None:
    with pytest.raises(ggc.GraphError, match=r"no tensor type|has no type"):
        graph.input("x", dtype, 4)


def test_source_and_view(graph: ggc.Graph) -> None:
    x = graph.input("x", "f32", (8, 4))
    view = graph.view_2d(x, 4, 2, nb1=x.nb[1], offset=16)
    inner = graph.view_1d(view, 4, offset=32)
    assert view.op == "VIEW"
    assert view.src == [x]
    assert inner.src == [view]
    assert inner.view_src == x  # the root
    assert inner.is_view
    assert graph.silu(view).op == "SILU"


def test_equal_tensors_are_the_same_tensor(graph: ggc.Graph) -> None:
    x, y = graph.input("x", "f32", 4), graph.input("y", "f32", 4)
    z = graph.add(x, y)
    assert z.src == [x, y]
    assert len({x, y, *z.src}) == 2
    assert x != "x"


def test_source_in_a_store_belongs_to_the_store(store: ggc.Store, graph: ggc.Graph) -> None:
    w = store.zeros("w", "f32", (4, 4))
    y = graph.mul_mat(w, graph.input("x", "f32", 4))
    store.close()
    with pytest.raises(ggc.ClosedError):
        _ = y.src[0].ne


# --- methods -------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", RECIPES)
def test_every_builder_builds(graph: ggc.Graph, op: str) -> None:
    tensor = getattr(graph, op)(*right_arguments(graph, op))
    assert isinstance(tensor, ggc.Tensor)
    assert tensor._owner is graph


def test_arguments_by_name(graph: ggc.Graph) -> None:
    x = graph.input("x", "f32", (8, 4))
    y = graph.scale_bias(a=x, s=2.0, b=1)
    assert y.src == [x]
    assert graph.view_2d(x, ne0=4, ne1=2, nb1=32, offset=0).ne == (4, 2, 1, 1)


def test_enum_by_name_and_number(graph: ggc.Graph) -> None:
    x = graph.input("x", "f32", (8, 4))
    swiglu = int(_native.lib.GGML_GLU_OP_SWIGLU)
    for op in ("swiglu", "SWIGLU", swiglu):
        assert graph.glu(x, op, swapped=False).op == "SWIGLU"
    positions = graph.input("p", "i32", 1)
    heads = graph.input("h", "f32", (8, 4, 1))
    for mode in ("neox", int(_native.lib.GGML_ROPE_TYPE_NEOX)):
        assert graph.rope(heads, positions, 8, mode)._ptr.op_params[2] == 2


def test_numpy_scalars_are_numbers(graph: ggc.Graph) -> None:
    x = graph.input("x", "f32", (8, 4))
    assert graph.scale(x, np.float32(2)).op == "SCALE"
    assert graph.view_1d(x, np.int64(8), np.uint8(0)).ne[0] == 8


def test_tensors_of_other_graphs_are_refused(graph: ggc.Graph) -> None:
    with ggc.Graph() as other:
        foreign = other.input("x", "f32", 4)
        for call in (graph.silu, graph.expand, graph.output):
            with pytest.raises(ggc.GraphError, match=r"another Graph|that this Graph computes"):
                call(foreign)


def test_changes_of_a_tensor(graph: ggc.Graph) -> None:
    w, x = graph.input("w", "f16", (8, 4)), graph.input("x", "f32", (8, 2))
    y = graph.mul_mat(w, x)
    assert graph.prec_set_acc(y, "f32") == y
    assert y._ptr.op_params[0] == _native.lib.GGML_PREC_F32
    with pytest.raises(ggc.GraphError, match="computed by SILU"):
        graph.prec_set_acc(graph.silu(x), "f32")
    graph.expand(y)
    with pytest.raises(ggc.GraphError, match="in the graph already"):
        graph.prec_set_acc(y, "f32")


def test_sinks_cannot_be_computed_from_their_attention(graph: ggc.Graph) -> None:
    scores = graph.soft_max_ext(graph.input("x", "f32", (4, 4, 2)), None, 1.0, 0.0)
    sinks = graph.view_1d(scores, 2, 0)
    with pytest.raises(ggc.GraphError, match="computed from a"):
        graph.soft_max_add_sinks(scores, sinks)


# --- names ---------------------------------------------------------------------------------------


def test_names(graph: ggc.Graph) -> None:
    y = graph.silu(graph.input("x", "f32", 4))
    y.name = "activation"
    assert y.name == "activation"
    graph.set_name(y, "n\N{LATIN SMALL LETTER O WITH DIAERESIS}")
    assert y.name == "n\N{LATIN SMALL LETTER O WITH DIAERESIS}"
    graph.output(y, "result")
    assert y.name == "result"
    assert graph.outputs == {"result": y}


@pytest.mark.parametrize("name", ["", "x" * 64, "\N{SNOWMAN}" * 22, "a\0b"])
def test_names_that_ggml_would_cut_are_refused(graph: ggc.Graph, name: str) -> None:
    with pytest.raises(ggc.GraphError, match="expected a name of 1 to 63 bytes"):
        graph.input(name, "f32", 4)


def test_names_of_inputs_and_outputs_are_unique(graph: ggc.Graph) -> None:
    x = graph.input("x", "f32", 4)
    with pytest.raises(ggc.GraphError, match="has an input 'x' already"):
        graph.input("x", "f32", 4)
    graph.output(graph.silu(x), "y")
    with pytest.raises(ggc.GraphError, match="has an output 'y' already"):
        graph.output(graph.relu(x), "y")


def test_outputs_without_a_name_get_one(graph: ggc.Graph) -> None:
    x = graph.input("x", "f32", 4)
    graph.output(graph.silu(x))
    graph.output(graph.relu(x))
    assert list(graph.outputs) == ["output", "output_1"]


def test_what_nothing_computes_is_no_output(store: ggc.Store, graph: ggc.Graph) -> None:
    with pytest.raises(ggc.GraphError, match="nothing computes"):
        graph.output(graph.input("x", "f32", 4))
    with pytest.raises(ggc.GraphError, match="that this Graph computes"):
        graph.output(store.zeros("w", "f32", 4))


# --- order and size ------------------------------------------------------------------------------


def test_nodes_stand_in_the_order_of_expansion(graph: ggc.Graph) -> None:
    x = graph.input("x", "f32", 4)
    late, early = graph.silu(x), graph.relu(x)
    graph.expand(early)
    graph.output(graph.add(late, early))
    assert [node.op for node in graph.nodes] == ["RELU", "SILU", "ADD"]
    assert len(graph) == 3
    assert graph.node(-1).op == "ADD"
    with pytest.raises(IndexError):
        graph.node(3)


def test_select_marks_one_branch(graph: ggc.Graph) -> None:
    x = graph.input("x", "f32", 4)
    branches = [graph.silu(x), graph.relu(x)]
    chosen = graph.select(branches, 1)
    graph.output(graph.sqr(chosen), "y")
    marked = [bool(n._ptr.flags & _native.lib.GGML_TENSOR_FLAG_COMPUTE) for n in graph.nodes]
    assert marked == [False, True, True]
    with pytest.raises(ggc.GraphError, match="idx is 2"):
        graph.select(branches, 2)


def test_more_nodes_than_size() -> None:
    with ggc.Graph(size=4) as graph:
        x = graph.input("x", "f32", 4)
        for _ in range(6):
            x = graph.silu(x)
        with pytest.raises(ggc.GraphError, match=r"was made for 4 nodes.*larger Graph\(size"):
            graph.output(x)
        with pytest.raises(ggc.GraphError, match="larger Graph"):  # half of the nodes are in
            graph.silu(x)
        with pytest.raises(ggc.GraphError, match="larger Graph"):
            ggc.find_concurrency(graph)


def test_more_tensors_than_room() -> None:
    def fill(graph: ggc.Graph) -> None:
        for i in range(1000):
            graph.input(f"x{i}", "f32", 4)

    with ggc.Graph(size=1) as graph, pytest.raises(ggc.GraphError, match=r"no room.*larger Graph"):
        fill(graph)


@pytest.mark.parametrize("size", [0, -1, 2**40])
def test_impossible_size(size: int) -> None:
    with pytest.raises(ggc.GraphError, match="expected 1 to"):
        ggc.Graph(size)


def test_long_chain_does_not_end_the_stack() -> None:
    """ggml visits a graph by recursion: on this thread's stack that would be too deep."""
    n = 10_000
    last = []

    def build() -> None:
        with ggc.Graph(size=n) as graph:
            x = graph.input("x", "f32", 4)
            for _ in range(n - 1):
                x = graph.view_1d(x, 4, 0)
            graph.output(graph.silu(x))
            last.append((len(graph), graph.node(-1).op))

    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=build)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert last == [(n, "SILU")]


def test_long_graphs_keep_ggmls_order() -> None:
    """Walked here, the nodes come in the order of ggml's own recursion."""

    def build(graph: ggc.Graph) -> list[tuple[str, int]]:
        x = graph.input("x", "f32", 4)
        for i in range(40):
            side = graph.relu(graph.silu(x)) if i % 3 else graph.silu(x)
            x = graph.add(graph.mul(side, x), graph.sqr(side) if i % 2 else side)
        graph.output(x)
        return [(n.op, len(n.src)) for n in graph.nodes]

    with ggc.Graph() as short, ggc.Graph() as long:
        long._pending = 10**6
        assert build(short) == build(long)


def test_copies_to_another_type_are_their_own_source(graph: ggc.Graph) -> None:
    """ggml lets cast() name its result among its sources: walking must not go round for ever."""
    graph._pending = 10**6
    graph.output(graph.cast(graph.input("x", "f32", 4), "f16"))
    assert [n.op for n in graph.nodes] == ["CPY"]
