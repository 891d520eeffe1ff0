"""Plans from Python: what may run at once, the proof, and what is no graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import ggml_concurrent as ggc
from ggml_concurrent import _native


def projections(graph: ggc.Graph, n: int = 3) -> list[ggc.Tensor]:
    """One norm, n products of it, and their sum."""
    x = graph.rms_norm(graph.input("x", "f32", (512, 2)), 1e-6)
    products = [graph.mul_mat(graph.input(f"w{i}", "f32", (512, 512)), x) for i in range(n)]
    total = products[0]
    for product in products[1:]:
        total = graph.add(total, product)
    graph.output(total, "y")
    return products


def index_of(graph: ggc.Graph, tensor: ggc.Tensor) -> int:
    return graph.nodes.index(tensor)


def c_list(graph: ggc.Graph) -> list[int]:
    """ggml_graph_find_concurrency_list itself."""
    capacity = 2 * len(graph) + 1
    out, n = _native.ffi.new("int32_t[]", capacity), _native.ffi.new("int32_t *")
    status = _native.lib.ggml_graph_find_concurrency_list(graph._graph, out, capacity, n)
    assert status == _native.lib.GGC_OK
    return list(out[0 : n[0]])


# --- what comes out ------------------------------------------------------------------------------


def test_projections_share_a_phase(graph: ggc.Graph) -> None:
    products = projections(graph)
    plan = ggc.find_concurrency(graph)
    nodes = sorted(index_of(graph, p) for p in products)
    assert nodes in plan.phases
    assert plan.phases[0] == [0]  # the norm
    assert len(plan.phases) == plan.stats.n_phases == 4
    assert plan.stats.width == 3
    assert plan.stats.hazards == {"RAW": plan.stats.n_deps, "WAR": 0, "WAW": 0, "FENCE": 0}


def test_order_and_list_hold_every_node_once(graph: ggc.Graph) -> None:
    projections(graph)
    plan = ggc.find_concurrency(graph)
    assert sorted(plan.order) == list(range(len(graph)))
    assert [n for n in plan.list if n != ggc.BARRIER] == plan.order
    assert plan.list.count(ggc.BARRIER) == len(plan.phases) - 1
    assert plan.list == c_list(graph)
    assert ggc.BARRIER == -1


def test_views_cost_no_phase(graph: ggc.Graph) -> None:
    x = graph.silu(graph.input("x", "f32", (8, 4)))
    view = graph.transpose(graph.view_2d(x, 4, 4, x.nb[1], 0))
    graph.output(graph.cont(view), "y")
    plan = ggc.find_concurrency(graph)
    assert (plan.stats.n_nodes, plan.stats.n_units, plan.stats.n_phases) == (4, 2, 2)
    assert plan.phases == [[0, 1, 2], [3]]
    assert plan.units == [(0,), (3,)]


def test_cache_is_written_before_it_is_read(store: ggc.Store, graph: ggc.Graph) -> None:
    cache = store.zeros("cache", "f32", (8, 16))
    before = graph.output(graph.scale(graph.view_1d(cache, 8, 0), 2.0), "before")
    rows = graph.input("rows", "i64", 1)
    written = graph.expand(graph.set_rows(cache, graph.input("new", "f32", 8), rows))
    after = graph.output(graph.scale(graph.view_1d(cache, 8, 0), 3.0), "after")
    plan = ggc.find_concurrency(graph)
    plan.verify()
    war = plan.explain(index_of(graph, before), index_of(graph, written))
    raw = plan.explain(index_of(graph, written), index_of(graph, after))
    assert war is not None
    assert raw is not None
    assert (war.hazard, raw.hazard) == ("WAR", "RAW")
    assert plan.stats.hazards["WAR"] == 1


def test_writes_to_different_bytes_run_at_once(store: ggc.Store, graph: ggc.Graph) -> None:
    cache = store.zeros("cache", "f32", (8, 4))
    for i in range(4):
        row = graph.view_1d(cache, 8, i * cache.nb[1])
        graph.expand(graph.cpy(graph.input(f"x{i}", "f32", 8), row))
    assert ggc.find_concurrency(graph, streams=4).stats.n_phases == 1


def test_in_place_waits_for_other_readers(graph: ggc.Graph) -> None:
    x = graph.silu(graph.input("x", "f32", 8))
    reader = graph.output(graph.relu(x), "a")
    writer = graph.output(graph.sqr_inplace(x), "b")
    plan = ggc.find_concurrency(graph)
    conflict = plan.explain(index_of(graph, reader), index_of(graph, writer))
    assert conflict is not None
    assert conflict.hazard == "WAR"
    assert (conflict.begin, conflict.end) == (0, 32)


def test_nodes_not_computed_belong_to_no_unit(graph: ggc.Graph) -> None:
    x = graph.input("x", "f32", 8)
    graph.output(graph.sqr(graph.select([graph.silu(x), graph.relu(x)], 1)), "y")
    assert ggc.find_concurrency(graph).units == [(1,), (2,)]


def test_empty_graph(graph: ggc.Graph) -> None:
    plan = ggc.find_concurrency(graph)
    plan.verify()
    assert (plan.order, plan.list, plan.phases, plan.units) == ([], [], [], [])


@pytest.mark.parametrize("strategy", ["list", "levels", "serial"])
@pytest.mark.parametrize("streams", [1, 2, 3, 64])
def test_strategies(graph: ggc.Graph, strategy: str, streams: int) -> None:
    projections(graph, 8)
    plan = ggc.find_concurrency(graph, streams=streams, strategy=strategy)
    plan.verify()
    assert 1 <= plan.stats.n_streams <= streams
    assert sorted(s.unit for steps in plan.streams for s in steps) == list(range(len(plan.units)))
    for steps in plan.streams:
        assert all(step.nodes == plan.units[step.unit] for step in steps)
    if strategy == "serial":
        assert plan.stats.n_streams == 1


def test_fused_nodes_stay_together(graph: ggc.Graph) -> None:
    x = graph.input("x", "f32", (16, 2))
    graph.output(graph.mul(graph.rms_norm(x, 1e-6), graph.input("w", "f32", 16)), "y")
    assert ggc.find_concurrency(graph, fuse="none").units == [(0,), (1,)]
    assert ggc.find_concurrency(graph, fuse="cpu").units == [(0, 1)]


# --- proof ---------------------------------------------------------------------------------------


def spoil_waits(plan: ggc.Plan) -> None:
    for steps in plan.streams:
        steps[:] = [step._replace(waits=()) for step in steps]


def spoil_order(plan: ggc.Plan) -> None:
    plan.streams[:] = [[s for steps in plan.streams for s in steps][::-1]]
    spoil_waits(plan)


def spoil_phases(plan: ggc.Plan) -> None:
    plan.phases[1] += plan.phases.pop(2)


@pytest.mark.parametrize("spoil", [spoil_waits, spoil_order, spoil_phases])
def test_races_are_found(graph: ggc.Graph, spoil: Callable[[ggc.Plan], None]) -> None:
    projections(graph)
    plan = ggc.find_concurrency(graph)
    plan.verify()
    spoil(plan)
    with pytest.raises(ggc.RaceError, match=r"node \d+ .* and node \d+ .* bytes \d+ to \d+"):
        plan.verify()


def test_what_is_no_schedule(graph: ggc.Graph) -> None:
    projections(graph)
    plan = ggc.find_concurrency(graph)
    first = plan.streams[0].pop()
    with pytest.raises(ggc.PlanError, match="not each of"):
        plan.verify()
    plan.streams[0] += [first, first]
    with pytest.raises(ggc.PlanError, match="not each of"):
        plan.verify()
    plan.streams[0][0] = plan.streams[0][0]._replace(waits=(plan.streams[0][-1].unit,))
    with pytest.raises(ggc.PlanError, match="never issued before"):
        plan.verify()
    whole = ggc.find_concurrency(graph)
    whole.phases.pop()
    with pytest.raises(ggc.PlanError, match="in no phase"):
        whole.verify()


def test_explain(graph: ggc.Graph) -> None:
    products = [index_of(graph, p) for p in projections(graph)]
    plan = ggc.find_concurrency(graph)
    assert plan.explain(products[0], products[1]) is None
    conflict = plan.explain(products[0], 0)  # either way round
    assert conflict is not None
    assert (conflict.first, conflict.second, conflict.hazard) == ((0,), (products[0],), "RAW")
    assert conflict.end - conflict.begin == 4096  # all of the norm's result
    assert "RMS_NORM" in str(conflict)
    assert "MUL_MAT" in str(conflict)
    with pytest.raises(ggc.PlanError, match="no node 99"):
        plan.explain(0, 99)


def test_plan_outlives_its_graph() -> None:
    with ggc.Graph() as graph:
        projections(graph)
        plan = ggc.find_concurrency(graph)
    del graph
    plan.verify()
    assert plan.explain(0, 1) is not None
    assert "MUL_MAT" in str(plan)


def test_plan_can_be_read(graph: ggc.Graph) -> None:
    projections(graph)
    plan = ggc.find_concurrency(graph)
    text = str(plan)
    assert text.splitlines()[0].startswith("6 nodes, 6 units, 4 phases of at most 3 units")
    assert text.count("MUL_MAT") == 3
    assert text.count("phase ") == 4
    assert repr(plan) == "<Plan 6 nodes, 4 phases, 2 streams>"


# --- addresses and wrong arguments ---------------------------------------------------------------


def test_graph_by_address(graph: ggc.Graph) -> None:
    projections(graph)
    by_address = ggc.find_concurrency(graph.address)
    assert by_address.list == ggc.find_concurrency(graph).list
    by_address.verify()


@pytest.mark.parametrize("address", [0, -1, 1, 8, 12345, 2**47 - 8, 2**63, 2**64, 2**70])
def test_addresses_of_no_graph(address: int) -> None:
    with pytest.raises(ggc.PlanError):
        ggc.find_concurrency(address)


def test_memory_that_is_no_graph() -> None:
    garbage = _native.ffi.new("char[]", b"\x01" * 4096)
    with pytest.raises(ggc.PlanError, match="layout"):
        ggc.find_concurrency(int(_native.ffi.cast("uintptr_t", garbage)))


def test_damaged_graph_is_refused(graph: ggc.Graph) -> None:
    projections(graph)
    node = graph.node(2)._ptr
    for damage, repair in (("op", node.op), ("type", node.type)):
        setattr(node, damage, 9999)
        with pytest.raises(ggc.PlanError, match="node 2 has the unknown"):
            ggc.find_concurrency(graph.address)
        setattr(node, damage, repair)
    source = node.src[0]
    node.src[0] = _native.ffi.cast("struct ggml_tensor *", 4096)
    with pytest.raises(ggc.PlanError):
        ggc.find_concurrency(graph.address)
    node.src[0] = source
    ggc.find_concurrency(graph.address).verify()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"streams": 0}, ggc.GraphError),
        ({"streams": 65}, ggc.GraphError),
        ({"streams": 1.5}, TypeError),
        ({"streams": True}, TypeError),
        ({"fuse": "gpu"}, ggc.GraphError),
        ({"strategy": "best"}, ggc.GraphError),
        ({"strategy": None}, ggc.GraphError),
    ],
)
def test_wrong_arguments(
    graph: ggc.Graph, arguments: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        ggc.find_concurrency(graph, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("graph_like", ["x", None, 1.5, object(), True])
def test_what_is_no_graph(graph_like: object) -> None:
    with pytest.raises(TypeError, match="expected a Graph or an address"):
        ggc.find_concurrency(graph_like)  # type: ignore[arg-type]


def test_closed_graph() -> None:
    graph = ggc.Graph()
    graph.close()
    with pytest.raises(ggc.ClosedError):
        ggc.find_concurrency(graph)
