"""Every graph of the zoo, in its tiny form.

The results' bits do not depend on the streams, and nothing is there that nothing reads.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import ggml_concurrent as ggc
from ggml_concurrent import _native, zoo
from ggml_concurrent.dtypes import dtype_of
from ggml_concurrent.zoo.builder import Builder

TINY = sorted(name for name in zoo.GRAPHS if name.endswith("-tiny"))
FULL = sorted(name for name in zoo.GRAPHS if not name.endswith("-tiny"))

#: Graphs whose matrices are tried in several types.
SOME = ["codebooks-tiny", "llama-tiny", "mmdit-tiny", "towers-tiny", "whisper-tiny"]

#: (graph, input that it has without reading it) -> why.
UNUSED_INPUTS: dict[tuple[str, str], str] = {}

#: (graph, weight or cache that it has without reading it) -> why.
UNUSED_TENSORS = {
    **{
        ("rwkv7-tiny", f"blk.0.time_mix_v{i}.weight"): "in the files; layer 0 mixes no values"
        for i in range(3)
    },
}

#: Parameters that a graph may have without reading them: llama.cpp's loader wants them.
UNUSED_PARAMETERS = {
    "bert.attention.causal",
    "deepseek2.attention.head_count_kv",
    "deepseek2.attention.key_length",
    "deepseek2.attention.value_length",
    "deepseek2.context_length",
    "deepseek2.rope.scaling.type",
    "tokenizer.ggml.token_type_count",
}

#: Graphs in which flash attention has no place -> why.
NO_FLASH = {
    "codebooks-tiny": "TTS.cpp does without",
    "rwkv7-tiny": "no attention",
    "towers-tiny": "no attention",
    "whisper-cross-tiny": "what attention will read",
}

#: Graphs that cannot be built for these many tokens -> why.
NOT_FOR: dict[tuple[str, int], str] = {}

SERIAL = {"streams": 1}
TWO_STREAMS = {"streams": 2, "always": True}
STRESSED = {"streams": 2, "always": True, "stress_seed": 7}


def results(name: str, runner: Mapping[str, Any], **options: Any) -> dict[str, np.ndarray]:
    """Outputs and written caches after one computation on fresh weights."""
    with zoo.build(name, **options) as workload, workload.runner(**runner) as opened:
        opened.plan.verify()
        return workload.run(opened)


def plain_results(name: str, **options: Any) -> dict[str, np.ndarray]:
    """The same, computed by ggml alone."""
    with zoo.build(name, **options) as workload, workload.runner(**SERIAL) as opened:
        ggc.compute_serial(workload.graph, threads=1)
        return {n: opened.get(n) for n in workload.graph.outputs} | workload.caches()


def assert_same_bits(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes(), name


def assert_alive(found: Mapping[str, np.ndarray]) -> None:
    """Values that tell something: finite, and neither all zero nor all the same."""
    assert found
    for name, array in found.items():
        assert np.isfinite(array).all(), name
        assert np.ptp(array.astype(np.float64)) > 0, f"{name} is constant"


# --- the list ------------------------------------------------------------------------------------


def test_names_are_unique_and_plain() -> None:
    names = Counter(entry.name for module in zoo._MODULES for entry in module.ENTRIES)
    assert [name for name, n in names.items() if n > 1] == []
    assert set(names) == set(zoo.GRAPHS)
    for name in names:
        assert re.fullmatch(r"[a-z0-9.-]+", name), name


@pytest.mark.parametrize("name", sorted(zoo.GRAPHS))
def test_entry_describes_itself(name: str) -> None:
    entry = zoo.GRAPHS[name]
    assert entry.name == name
    assert entry.about.strip()
    assert "\n" not in entry.about
    assert entry.function.__doc__
    assert entry.n_tokens >= 1
    assert entry.n_past >= 0


def test_every_function_has_a_tiny_graph() -> None:
    tested = {zoo.GRAPHS[name].function for name in TINY}
    assert [name for name in FULL if zoo.GRAPHS[name].function not in tested] == []


# --- results -------------------------------------------------------------------------------------


@pytest.mark.parametrize("flash_attn", [False, True], ids=["", "flash"])
@pytest.mark.parametrize("name", TINY)
def test_streams_change_no_bit(name: str, flash_attn: bool) -> None:
    expected = plain_results(name, flash_attn=flash_attn)
    assert_alive(expected)
    for runner in (SERIAL, TWO_STREAMS, STRESSED):
        assert_same_bits(results(name, runner, flash_attn=flash_attn), expected)


@pytest.mark.parametrize("name", TINY)
def test_other_inputs_give_other_results(name: str) -> None:
    """Of equal steps the same ones: what is read too early on a device is found that way."""

    def outputs(steps: list[int], **runner: Any) -> list[dict[str, np.ndarray]]:
        with zoo.build(name) as workload, workload.runner(**runner) as opened:
            return [workload.outputs(opened, step) for step in steps]

    serial = outputs([0, 1, 2], **SERIAL)
    for now, before in itertools.pairwise(serial):
        assert any(now[key].tobytes() != before[key].tobytes() for key in now)
    for found, expected in zip(outputs([0, 1, 2], **TWO_STREAMS), serial, strict=True):
        assert_same_bits(found, expected)


@pytest.mark.parametrize("name", TINY)
def test_flash_attention_is_one_operation(name: str) -> None:
    with zoo.build(name, flash_attn=True) as flash, zoo.build(name) as plain:
        fused = [node.op == "FLASH_ATTN_EXT" for node in flash.graph.nodes]
        assert any(fused) == (name not in NO_FLASH)
        assert all(node.op != "FLASH_ATTN_EXT" for node in plain.graph.nodes)


@pytest.mark.parametrize("n_tokens", [1, 8])
@pytest.mark.parametrize("name", TINY)
def test_numbers_of_tokens(name: str, n_tokens: int) -> None:
    if (name, n_tokens) in NOT_FOR:
        with pytest.raises(ggc.Error):
            zoo.build(name, n_tokens=n_tokens)
        return
    expected = results(name, SERIAL, n_tokens=n_tokens)
    assert_alive(expected)
    assert_same_bits(results(name, STRESSED, n_tokens=n_tokens), expected)


@pytest.mark.parametrize("n_past", [0, 1, 23])
@pytest.mark.parametrize("name", [name for name in TINY if zoo.GRAPHS[name].n_past])
def test_lengths_of_the_past(name: str, n_past: int) -> None:
    expected = results(name, SERIAL, n_past=n_past)
    assert_alive(expected)
    assert_same_bits(results(name, STRESSED, n_past=n_past), expected)


@pytest.mark.parametrize("zero_caches", [False, True])
@pytest.mark.parametrize("name", TINY)
def test_caches_are_written(name: str, zero_caches: bool) -> None:
    with zoo.build(name, zero_caches=zero_caches) as workload:
        before = workload.caches()
        with workload.runner(**TWO_STREAMS) as runner:
            workload.run(runner)
            after = workload.caches()
    assert not zero_caches or not any(array.any() for array in before.values())
    if before:
        assert any(after[n].tobytes() != array.tobytes() for n, array in before.items())


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("mmdit-tiny", set()),
        ("whisper-tiny", {"kv_self.k", "kv_self.v"}),  # kv_cross is only read
        ("whisper-cross-tiny", {"kv_cross.k", "kv_cross.v"}),
    ],
)
def test_caches_are_what_the_graph_writes(name: str, written: set[str]) -> None:
    with zoo.build(name) as workload:
        assert set(workload.caches()) == written


@pytest.mark.parametrize("name", TINY)
def test_only_the_seed_decides(name: str) -> None:
    first = results(name, TWO_STREAMS, seed=3)
    assert_same_bits(results(name, TWO_STREAMS, seed=3), first)
    other = results(name, TWO_STREAMS, seed=4)
    assert list(other) == list(first)
    assert all(other[n].tobytes() != array.tobytes() for n, array in first.items())


@pytest.mark.parametrize("name", TINY)
def test_weights_and_inputs_come_from_the_seed(name: str) -> None:
    with zoo.build(name, seed=5) as one, zoo.build(name, seed=5) as two:
        assert_same_bits(contents(two), contents(one))
        assert_same_bits(two.feeds, one.feeds)


def contents(workload: zoo.Workload) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in workload.store.tensors.items()}


# --- types of weights ----------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "likeness"), [("f16", 0.999), ("q8_0", 0.99), ("q4_0", 0.7)])
@pytest.mark.parametrize("name", SOME)
def test_types_of_matrices(name: str, dtype: str, likeness: float) -> None:
    """Nearly the results of f32 weights, as the random numbers are the same."""
    found = results(name, STRESSED, dtype=dtype)
    assert_same_bits(found, results(name, SERIAL, dtype=dtype))
    assert_alive(found)
    for output, exact in results(name, SERIAL).items():
        assert np.corrcoef(found[output].ravel(), exact.ravel())[0, 1] > likeness, output


@pytest.mark.parametrize("dtype", ["q4_0", "q8_0"])
@pytest.mark.parametrize("name", SOME)
def test_repacked_matrices(name: str, dtype: str) -> None:
    options = {"dtype": dtype, "repack": True}
    with zoo.build(name, **options) as workload:
        store = workload.store
        kinds = {t.dtype for t in store.tensors.values() if store._is_repacked(t)}
        assert kinds <= {dtype}
        kind = dtype_of(dtype)
        weights = {n.src[0] for n in workload.graph.nodes if n.op == "MUL_MAT"}
        weights -= {n.src[0] for n in workload.graph.nodes if n.op == "GET_ROWS"}
        possible = [store._device.repack_type(kind, t.ne) for t in weights if t.dtype == dtype]
        assert possible
        assert bool(kinds) == any(layout is not None for layout in possible)
        if not kinds:
            pytest.skip(f"this CPU has no repacked layout for these shapes of {dtype}")
    found = results(name, STRESSED, **options)
    assert_same_bits(found, results(name, SERIAL, **options))
    for output, plain in results(name, SERIAL, dtype=dtype).items():
        assert np.corrcoef(found[output].ravel(), plain.ravel())[0, 1] > 0.99, output


@pytest.mark.parametrize("name", SOME)
def test_matrices_have_the_type_asked_for(name: str) -> None:
    with zoo.build(name, dtype="q8_0") as workload:
        kinds = Counter(t.dtype for t in workload.store.tensors.values())
    assert kinds["q8_0"] > 0
    assert set(kinds) <= {"q8_0", "f32", "f16"}  # f32: vectors; f16: caches


# --- nothing for nothing -------------------------------------------------------------------------


def known(listed: Mapping[tuple[str, str], str], name: str) -> set[str]:
    """What a list tells of one graph."""
    return {item for graph, item in listed if graph == name}


def test_lists_are_of_graphs_that_exist() -> None:
    listed = [*UNUSED_INPUTS, *UNUSED_TENSORS, *NOT_FOR]
    assert {name for name, _ in listed} | set(NO_FLASH) <= set(TINY)


@pytest.mark.parametrize("flash_attn", [False, True], ids=["", "flash"])
@pytest.mark.parametrize("name", TINY)
def test_every_input_is_fed_and_read(name: str, flash_attn: bool) -> None:
    with (
        zoo.build(name, flash_attn=flash_attn) as workload,
        workload.runner(**SERIAL) as runner,
    ):
        inputs = set(workload.graph.inputs)
        assert set(workload.feeds) == inputs
        assert inputs - set(runner.input_names) == known(UNUSED_INPUTS, name)


@pytest.mark.parametrize("name", TINY)
def test_every_tensor_is_read(name: str) -> None:
    with zoo.build(name) as workload:
        read = {tensor for node in workload.graph.nodes for tensor in (*node.src, node.view_src)}
        unread = {n for n, tensor in workload.store.tensors.items() if tensor not in read}
    assert unread == known(UNUSED_TENSORS, name)


class Asked(Mapping[str, Any]):
    """Parameters that note which of them are looked up, those that are absent included."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.keys_asked: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.keys_asked.add(key)
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def keys_asked(entry: zoo.Entry) -> set[str]:
    parameters = Asked(entry.parameters)
    b = Builder(dtype=entry.dtype, n_tokens=entry.n_tokens, n_past=entry.n_past)
    try:
        entry.function(b, parameters, **entry.options)
    finally:
        b.close()
    return parameters.keys_asked


@pytest.mark.parametrize("name", TINY)
def test_every_parameter_is_read(name: str) -> None:
    entry = zoo.GRAPHS[name]
    assert set(entry.parameters) - keys_asked(entry) <= UNUSED_PARAMETERS


@pytest.mark.parametrize("name", FULL)
def test_parameters_are_spelled_as_in_the_tiny_graph(name: str) -> None:
    entry = zoo.GRAPHS[name]
    asked: set[str] = set()
    for sibling in (zoo.GRAPHS[other] for other in TINY):
        if sibling.function is entry.function:
            asked |= keys_asked(sibling)
    assert set(entry.parameters) - asked <= UNUSED_PARAMETERS


def test_parameters_listed_as_unused_are() -> None:
    entries = [zoo.GRAPHS[name] for name in TINY]
    assert {key for e in entries for key in set(e.parameters) - keys_asked(e)} == UNUSED_PARAMETERS


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: zoo.build("llama-8x"), "no graph 'llama-8x' in the zoo; it has: .*llama-tiny"),
        (lambda: zoo.build(""), "no graph '' in the zoo"),
        (lambda: zoo.build("llama-tiny", n_tokens=0), "n_tokens is 0, expected 1 to"),
        (lambda: zoo.build("llama-tiny", n_tokens=-2), "n_tokens is -2"),
        (lambda: zoo.build("llama-tiny", n_past=-1), "n_past is -1, expected 0 to"),
        (lambda: zoo.build("llama-tiny", seed=-1), "seed is -1, expected 0 to"),
        (lambda: zoo.build("llama-tiny", dtype="f33"), "no tensor type 'f33'"),
        (lambda: zoo.build("llama-tiny", dtype="q4_K"), "multiple of 256"),
        (lambda: zoo.build("llama-tiny", size=100), "made for 100 nodes"),
        (lambda: zoo.build("whisper-tiny", n_past=31), "n_text_ctx = 32"),
        (lambda: zoo.build("whisper-cross-tiny", n_past=1), "n_past 1"),
        (lambda: zoo.build("whisper-cross-tiny", n_tokens=31), "n_audio_ctx = 30"),
        (lambda: zoo.build("mmdit-tiny", n_past=1), "no cache"),
        (lambda: zoo.build("codebooks-tiny", n_past=31), "expected at most 32"),
    ],
)  # fmt: skip
def test_wrong_arguments(make: Callable[[], zoo.Workload], message: str) -> None:
    with pytest.raises(ggc.Error, match=message):
        make()


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_tokens": 1.5}, "n_tokens: expected an int, got float"),
        ({"n_tokens": "8"}, "n_tokens: expected an int, got str"),
        ({"n_past": True}, "n_past: expected an int, got bool"),
        ({"seed": "x"}, "seed: expected an int, got str"),
        ({"dtype": 1.5}, "expected a tensor type"),
        ({"flash": True}, "unexpected keyword argument 'flash'"),
    ],
)
def test_arguments_of_another_kind(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        zoo.build("llama-tiny", **options)


@pytest.mark.usefixtures("no_leak")
def test_missing_parameter_frees_what_was_built() -> None:
    entry = zoo.Entry(
        "broken", "lacks its layers", zoo.GRAPHS["towers-tiny"].function, {"towers": 1}
    )
    with pytest.raises(KeyError):
        entry.build()


# --- life ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("name", TINY)
def test_close_frees_everything(name: str) -> None:
    before = _native.live_handles()
    workload = zoo.build(name)
    runner = workload.runner(**TWO_STREAMS)
    workload.run(runner)
    assert _native.live_handles() != before
    runner.close()
    workload.close()
    del runner
    assert _native.live_handles() == before
    workload.close()
    with pytest.raises(ggc.ClosedError):
        workload.runner()


@pytest.mark.usefixtures("no_leak")
def test_builder_closes() -> None:
    before = _native.live_handles()
    b = Builder()
    b.output(b.g.mul_mat(b.matrix("w", 32, 4), b.activations("x", 32)), "y")
    assert _native.live_handles() != before
    b.close()
    assert _native.live_handles() == before


# --- random numbers ------------------------------------------------------------------------------


@pytest.fixture
def builder() -> Iterator[Builder]:
    b = Builder(dtype="f32", seed=1)
    yield b
    b.close()


def test_weights_have_the_size_that_keeps_activations(builder: Builder) -> None:
    matrix = builder.matrix("m", 256, 64).numpy()
    assert matrix.shape == (64, 256)
    assert abs(matrix.std() * 16 - 1) < 0.05
    assert abs(matrix.mean()) < 0.01
    assert abs(builder.table("t", 256, 64).numpy().std() - 1) < 0.05
    norm = builder.norm("n", 256).numpy()
    assert 0.5 <= norm.min() < 0.6
    assert 1.4 < norm.max() <= 1.5
    vector = builder.vector("v", 256, scale=2.0, offset=10.0).numpy()
    assert abs(vector.mean() - 10) < 1
    assert abs(vector.std() - 2) < 0.5


def test_names_tell_tensors_apart(builder: Builder) -> None:
    a, b = builder.matrix("a", 32, 32), builder.matrix("b", 32, 32)
    assert (a.numpy() != b.numpy()).all()
    with pytest.raises(ggc.GraphError, match="'a' already"):
        builder.matrix("a", 32, 32)


def test_copies_of_tables_hold_the_same(builder: Builder) -> None:
    table = builder.table("t", 32, 20)
    copy = builder.table_copy("t (output)", table)
    assert copy != table
    assert (copy.numpy() == table.numpy()).all()


def test_large_tensors_are_runs_of_rows_from_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ggml_concurrent.zoo.builder._OWN", 32 * 8)
    monkeypatch.setattr("ggml_concurrent.zoo.builder._POOL", 32 * 40)
    both = []
    for _ in range(2):
        b = Builder(dtype="q8_0")
        shapes = [b.matrix("m", 32, 205), b.matrix("n", 32, 41, 5), b.table("t", 32, 205)]
        copy = b.table_copy("t (output)", shapes[2])
        both.append([t.numpy().reshape(-1, 32) for t in (*shapes, copy)])
        b.close()
    m, n, table, copy = both[0]
    assert len(np.unique(np.concatenate([m, n]), axis=0)) <= 40
    assert (m != n).any()
    assert (m[20:40] != m[40:60]).any()
    assert (copy == table).all()
    assert abs(table.std() - 1) < 0.1
    assert abs(m.std() * 32**0.5 - 1) < 0.1
    assert all((x == y).all() for x, y in zip(*both, strict=True)), "equal arguments, equal values"


def test_large_repacked_tensors_hold_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ggml_concurrent.zoo.builder._OWN", 64 * 8)
    monkeypatch.setattr("ggml_concurrent.zoo.builder._POOL", 64 * 40)
    results = []
    for repack in (False, True):
        b = Builder(dtype="q4_0", repack=repack)
        x = b.activations("x", 64)
        b.output(b.g.mul_mat(b.matrix("m", 64, 96), x), "y")
        with ggc.Runner(b.g, streams=1) as runner:
            results.append(runner.run(x=b.feeds["x"])["y"])
        b.close()
    assert np.abs(results[0] - results[1]).max() < 1e-4 * np.abs(results[0]).max()


def test_inputs_are_fed_what_was_given(builder: Builder) -> None:
    given = np.arange(6, dtype=np.float32).reshape(2, 3)
    x = builder.input("x", "f32", given)
    ids = builder.ids("ids", 50, 7)
    assert x.ne[:2] == (3, 2)
    assert builder.feeds["x"] is given
    assert ids.ne[0] == 50
    assert set(builder.feeds["ids"]) == set(range(7))


@pytest.mark.parametrize("name", sorted(zoo.GRAPHS))
def test_plan_without_weights(name: str) -> None:
    """Also of what fits into no memory here; a tiny one's is that of the graph with weights."""
    with zoo.build(name, weights=False) as workload:
        plan = ggc.find_concurrency(workload.graph)
        plan.verify()
        assert plan.stats.width > 1
        with pytest.raises(ggc.GraphError, match="has no memory"):
            workload.runner()
    if name.endswith("-tiny"):
        with zoo.build(name) as workload:
            assert ggc.find_concurrency(workload.graph).phases == plan.phases
