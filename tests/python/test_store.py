"""Stores: values in and out, quantising, mapped files, repacking, life."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf_writer import write_gguf

import ggml_concurrent as ggc
from ggml_concurrent._native import ffi
from ggml_concurrent.dtypes import dtype_of, to_bytes

# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f4", "f2", "f8", "i1", "i2", "i4", "i8"])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 1, 3, 5)])
def test_arrays_come_back_as_they_were(
    store: ggc.Store, rng: np.random.Generator, dtype: str, shape: tuple[int, ...]
) -> None:
    array = (rng.standard_normal(shape) * 50).astype(dtype)
    tensor = store.array("x", array)
    assert tensor.shape == shape
    assert tensor.ne[: len(shape)] == shape[::-1]
    back = tensor.numpy()
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()
    back[:] = 0  # a copy
    assert tensor.numpy().tobytes() == array.tobytes()


def test_memory_layout_of_the_array_does_not_matter(
    store: ggc.Store, rng: np.random.Generator
) -> None:
    array = rng.standard_normal((6, 8)).astype("f4")
    for i, strange in enumerate([array.T, array[::2, ::-1], np.asfortranarray(array)]):
        assert (store.array(f"x{i}", strange).numpy() == strange).all()
    assert (store.array("swapped", array.astype(">f4")).numpy() == array).all()


def test_scalars_and_lists_are_arrays(store: ggc.Store) -> None:
    assert store.array("scalar", np.float32(2.5)).numpy().tolist() == [2.5]
    assert store.array("list", [[1.0, 2.0], [3.0, 4.0]], "f32").ne == (2, 2, 1, 1)


# Largest error of a value in a block, relative to the largest value of the block.
@pytest.mark.parametrize(
    ("dtype", "bound"),
    [
        ("bf16", 1 / 256), ("q8_0", 1 / 200), ("q6_K", 1 / 30), ("q5_1", 1 / 30), ("q5_K", 1 / 15),
        ("q4_0", 1 / 8), ("q4_K", 1 / 12), ("q3_K", 1 / 4), ("q2_K", 1 / 2), ("iq4_nl", 1 / 6),
    ],
)  # fmt: skip
def test_quantised_arrays_come_back_nearly(
    store: ggc.Store, rng: np.random.Generator, dtype: str, bound: float
) -> None:
    array = rng.uniform(-1, 1, (4, 512)).astype("f4")
    tensor = store.array("x", array, dtype=dtype)
    back = tensor.numpy()
    assert (back.dtype, back.shape, tensor.dtype) == (np.float32, array.shape, dtype)
    assert 0 < np.abs(back - array).max() < bound


def test_views_are_read_with_their_strides(store: ggc.Store, graph: ggc.Graph) -> None:
    array = np.arange(24, dtype="f4").reshape(4, 6)
    x = store.array("x", array)
    assert (graph.transpose(x).numpy() == array.T).all()
    assert (graph.view_2d(x, 3, 2, nb1=2 * x.nb[1], offset=4).numpy() == array[::2, 1:4]).all()
    q = store.array("q", np.tile(np.arange(64, dtype="f4"), (4, 1)), "q8_0")
    rows = graph.view_2d(q, 32, 2, nb1=2 * q.nb[1], offset=q.nb[0])
    assert (rows.numpy() == q.numpy()[::2, 32:]).all()


def test_set_writes_through(store: ggc.Store) -> None:
    x = store.zeros("x", "f32", (4, 2))
    x.set(np.ones((2, 4)))
    assert (x.numpy() == 1).all()
    x.set_raw(np.full(8, 2, "f4").tobytes())
    assert (x.numpy() == 2).all()
    q = store.zeros("q", "q8_0", 32)
    q.set(np.full(32, 127.0))
    assert (q.numpy() == 127).all()


def test_zeros_are_zero(store: ggc.Store) -> None:
    assert not store.zeros("k", "f16", (256, 512)).numpy().any()
    assert not store.zeros("q", "q4_K", (256, 2)).numpy().any()


@pytest.mark.parametrize(
    ("values", "dtype", "error", "message"),
    [
        (np.zeros((1, 1, 1, 1, 1)), "f32", ggc.GraphError, "at most 4 dimensions"),
        (np.zeros((0, 3)), "f32", ggc.GraphError, "holds nothing"),
        (np.zeros(100), "q4_0", ggc.GraphError, "multiple of 32"),
        (np.full(32, np.nan), "q4_0", ggc.GraphError, "not finite"),
        (np.full(32, np.inf), "q8_0", ggc.GraphError, "not finite"),
        (np.zeros(256), "iq2_xxs", ggc.GraphError, "importance matrix"),
        (np.zeros(4), "i32", ggc.GraphError, "expected integers"),
        (np.full(4, 2**40), "i32", ggc.GraphError, "do not fit"),
        (np.zeros(4, complex), None, TypeError, "array of numbers"),
        (np.zeros(4, "u1"), None, ggc.GraphError, "no type for NumPy's uint8"),
        (["a"], None, TypeError, "array of numbers"),
        (None, None, TypeError, "array of numbers"),
        (np.zeros(4), "f33", ggc.GraphError, "no tensor type 'f33'; known: .*q4_k"),
    ],
)
def test_arrays_that_make_no_tensor(
    store: ggc.Store, values: object, dtype: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        store.array("x", values, dtype)
    assert len(store) == 0
    assert store.array("x", np.zeros(4, "f4")).ne[0] == 4  # the name is still free


def test_wrong_shape_is_refused(store: ggc.Store) -> None:
    x = store.zeros("x", "f32", (4, 2))
    with pytest.raises(ggc.GraphError, match=r"shape \(2, 4\) .*looks transposed"):
        x.set(np.zeros((4, 2)))
    with pytest.raises(ggc.GraphError, match="expected 32 contiguous bytes, got 31"):
        x.set_raw(bytes(31))
    x.set(np.zeros((1, 1, 2, 4)))  # further leading ones are the same shape


def test_memory_that_no_machine_has(store: ggc.Store) -> None:
    with pytest.raises(ggc.DeviceError, match="cannot allocate"):
        store.zeros("x", "f32", (2**30, 2**20))
    with pytest.raises(ggc.GraphError, match="larger than any memory"):
        store.zeros("x", "f32", (2**40, 2**20))


# --- bytes ---------------------------------------------------------------------------------------


def quantised(values: np.ndarray, dtype: str) -> bytes:
    """The bytes that ggml makes of the values."""
    return to_bytes(values, dtype_of(dtype), values.shape[::-1], "values").tobytes()


def test_raw_bytes_are_the_tensors(store: ggc.Store, rng: np.random.Generator) -> None:
    array = rng.standard_normal((2, 3, 5)).astype("f4")
    tensor = store.raw("x", "f32", (5, 3, 2), array.tobytes())
    assert (tensor.name, tensor.dtype, tensor.ne) == ("x", "f32", (5, 3, 2, 1))
    assert tensor.numpy().tobytes() == array.tobytes()
    assert store["x"] == tensor
    assert store.raw("n", "i64", 4, np.arange(4)).numpy().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "kind",
    [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, "f4").reshape(2, 3)],
    ids=["bytes", "bytearray", "memoryview", "array"],
)
def test_raw_takes_any_contiguous_buffer(store: ggc.Store, kind: Callable[[bytes], object]) -> None:
    data = kind(np.arange(6, dtype="f4").tobytes())
    assert store.raw("x", "f32", (3, 2), data).numpy().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_raw_copies(store: ggc.Store) -> None:
    data = np.ones(8, "f4")
    tensor = store.raw("x", "f32", 8, data)
    data[:] = 0
    assert (tensor.numpy() == 1).all()


@pytest.mark.parametrize("dtype", ["q4_0", "q8_0", "q4_K", "bf16", "f16"])
def test_raw_quantised_bytes(store: ggc.Store, rng: np.random.Generator, dtype: str) -> None:
    values = rng.uniform(-1, 1, (4, 512)).astype("f4")
    tensor = store.raw("raw", dtype, (512, 4), quantised(values, dtype))
    expected = store.array("array", values, dtype)
    assert tensor.dtype == dtype
    assert tensor.numpy().tobytes() == expected.numpy().tobytes()


@pytest.mark.parametrize(
    ("dtype", "ne", "data", "error", "message"),
    [
        ("f32", (4, 2), bytes(31), ggc.GraphError, "raw 'x': expected 32 bytes, got 31"),
        ("f32", (4, 2), bytes(33), ggc.GraphError, "expected 32 bytes, got 33"),
        ("f32", (4, 2), b"", ggc.GraphError, "expected 32 bytes, got 0"),
        ("q4_0", (64, 2), bytes(64), ggc.GraphError, "expected 72 bytes, got 64"),
        ("q8_0", (33, 2), bytes(68), ggc.GraphError, "multiple of 32"),
        ("f33", (4, 2), bytes(32), ggc.GraphError, "no tensor type 'f33'"),
        ("f32", (0, 2), b"", ggc.GraphError, "positive integers"),
        ("f32", (2**40, 2**20), b"", ggc.GraphError, "larger than any memory"),
        ("f32", (2, 2, 2, 2, 2), bytes(128), ggc.GraphError, "1 to 4 positive integers"),
        ("f32", (4, 2), [0.0] * 8, TypeError, "bytes-like"),
        ("f32", 4, np.zeros(8, "f4")[::2], TypeError, "contiguous"),
    ],
)
def test_bytes_that_make_no_tensor(
    store: ggc.Store,
    dtype: str,
    ne: int | tuple[int, ...],
    data: object,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        store.raw("x", dtype, ne, data)
    assert len(store) == 0
    store.raw("x", "f32", 4, bytes(16))  # the name is still free
    with pytest.raises(ggc.GraphError, match="has a tensor 'x' already"):
        store.raw("x", "f32", 4, bytes(16))


def test_raw_repacked_gives_the_same_products(
    weights: np.ndarray, repacked: ggc.Tensor, rng: np.random.Generator
) -> None:
    """As `array` in a store that repacks; the argument goes before the store's own setting."""
    store, data = ggc.Store(), quantised(weights, "q4_0")
    chosen = store.raw("w", "q4_0", (256, 64), data, repack=True)
    assert store._is_repacked(chosen)
    with pytest.raises(ggc.Error, match="repacked for its device"):
        chosen.numpy()
    columns = rng.standard_normal((3, 256)).astype("f4")
    assert product(chosen, columns).tobytes() == product(repacked, columns).tobytes()
    repacking = ggc.Store(repack=True)
    assert repacking._is_repacked(repacking.raw("w", "q4_0", (256, 64), data))
    plain = repacking.raw("plain", "q4_0", (256, 64), data, repack=False)
    assert not repacking._is_repacked(plain)
    assert plain.numpy().tobytes() == store.array("a", weights, "q4_0").numpy().tobytes()


def test_raw_repacks_only_what_is_quantised(store: ggc.Store) -> None:
    tensor = store.raw("w", "f32", (32, 4), np.ones((4, 32), "f4"), repack=True)
    assert not store._is_repacked(tensor)
    assert (tensor.numpy() == 1).all()


def test_runner_names_the_inputs_that_are_read(graph: ggc.Graph) -> None:
    a, b, c = (graph.input(name, "f32", (4, 2)) for name in "abc")
    graph.output(graph.add(c, graph.reshape_2d(graph.view_1d(a, 8, 0), 4, 2)), "y")
    graph.mul(b, c)  # takes no part
    with ggc.Runner(graph) as runner:
        assert runner.input_names == ["a", "c"]
        with pytest.raises(ggc.GraphError, match="'b' is not used"):
            runner.set("b", np.zeros((2, 4)))
        with pytest.raises(ggc.Error, match="never set: a, c"):
            runner.compute()
        for name in runner.input_names:
            runner.set(name, np.ones((2, 4)))
        runner.compute()
        assert (runner.get("y") == 2).all()


# --- names and life ------------------------------------------------------------------------------


def test_store_is_a_collection(store: ggc.Store) -> None:
    a, b = store.zeros("a", "f32", 4), store.zeros("b", "f32", 8)
    assert store["a"] == a
    assert list(store) == ["a", "b"]
    assert store.tensors == {"a": a, "b": b}
    assert ("a" in store, "c" in store, len(store), store.nbytes) == (True, False, 2, 48)
    with pytest.raises(KeyError):
        _ = store["c"]
    with pytest.raises(ggc.GraphError, match="has a tensor 'a' already"):
        store.zeros("a", "f32", 4)
    with pytest.raises(ggc.GraphError, match="keep the names"):
        a.name = "c"


def test_unknown_device() -> None:
    with pytest.raises(ggc.DeviceError, match="no device 'tpu'"):
        ggc.Store(device="tpu")


def test_closed_store_cannot_be_used(graph: ggc.Graph) -> None:
    store = ggc.Store()
    x = store.zeros("x", "f32", 4)
    store.close()
    store.close()
    for use in (
        lambda: x.ne,
        x.numpy,
        lambda: x.set([1, 2, 3, 4]),
        lambda: graph.silu(x),
        lambda: store.zeros("y", "f32", 4),
        lambda: store.raw("y", "f32", 4, bytes(16)),
        lambda: store["x"],
        lambda: store.tensors,
        store.__enter__,
    ):
        with pytest.raises(ggc.ClosedError, match="closed"):
            use()
    assert "closed" in repr(x)
    assert "closed" in repr(store)


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture
def arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "w": rng.standard_normal((16, 64)).astype("f4"),
        "half": rng.standard_normal((3, 7)).astype("f2"),
        "bias": rng.standard_normal(5).astype("f4"),
    }


@pytest.fixture
def file(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    return write_gguf(tmp_path / "model.gguf", {"general.architecture": "test"}, arrays)


def test_tensors_of_a_file(store: ggc.Store, file: Path, arrays: dict[str, np.ndarray]) -> None:
    tensors = store.gguf(file)
    assert list(tensors) == list(arrays)
    for name, array in arrays.items():
        assert store[name] == tensors[name]
        assert tensors[name].numpy().tobytes() == array.tobytes()


def test_files_are_used_in_place(store: ggc.Store, file: Path) -> None:
    """The bytes are those of the mapping: one buffer, at the file's distances."""
    info = ggc.GGUF(file).tensors
    w, bias = store.gguf(file)["w"], store["bias"]
    assert bias._ptr.buffer == w._ptr.buffer
    start, end = (int(ffi.cast("uintptr_t", t._ptr.data)) for t in (w, bias))
    assert end - start == info["bias"].offset - info["w"].offset


def test_writing_to_a_mapped_tensor_leaves_the_file(
    store: ggc.Store, file: Path, arrays: dict[str, np.ndarray]
) -> None:
    before = file.read_bytes()
    tensor = store.gguf(file)["w"]
    tensor.set(np.zeros_like(arrays["w"]))
    assert not tensor.numpy().any()
    assert file.read_bytes() == before


def test_some_tensors_of_a_file(store: ggc.Store, file: Path) -> None:
    assert list(store.gguf(file, names=["bias"])) == ["bias"]
    assert list(store.gguf(file, names="w")) == ["w"]
    with pytest.raises(ggc.FormatError, match="has no tensors named 'x', 'y'"):
        store.gguf(file, names=["x", "half", "y"])
    assert list(store) == ["bias", "w"]


def test_a_file_is_loaded_as_a_whole_or_not_at_all(store: ggc.Store, file: Path) -> None:
    store.zeros("bias", "f32", 4)
    with pytest.raises(ggc.GraphError, match="'bias' already"):
        store.gguf(file)

    def fail(name: str, info: ggc.TensorInfo) -> bool:
        if name == "half":
            raise RuntimeError("stop")
        return False

    with pytest.raises(RuntimeError, match="stop"):
        store.gguf(file, names=["w", "half"], repack=fail)
    assert list(store) == ["bias"]


def test_mapping_outlives_the_file_name(
    store: ggc.Store, file: Path, arrays: dict[str, np.ndarray]
) -> None:
    tensors = store.gguf(file)
    file.unlink()
    assert (tensors["w"].numpy() == arrays["w"]).all()


# --- repacking -----------------------------------------------------------------------------------


@pytest.fixture
def weights(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(-1, 1, (64, 256)).astype("f4")


@pytest.fixture
def repacked(weights: np.ndarray) -> ggc.Tensor:
    store = ggc.Store(repack=True)
    tensor = store.array("w", weights, "q4_0")
    if not store._is_repacked(tensor):
        pytest.skip("this CPU has no repacked layout for q4_0")
    return tensor


def product(weight: ggc.Tensor, columns: np.ndarray) -> np.ndarray:
    with ggc.Graph() as graph:
        x = graph.input("x", "f32", columns.shape[::-1])
        graph.output(graph.mul_mat(weight, x), "y")
        with ggc.Runner(graph) as runner:
            return runner.run(x=columns)["y"]


def test_repacked_products_are_nearly_the_plain_ones(
    store: ggc.Store, weights: np.ndarray, repacked: ggc.Tensor, rng: np.random.Generator
) -> None:
    plain = store.array("w", weights, "q4_0")
    columns = rng.standard_normal((3, 256)).astype("f4")
    np.testing.assert_allclose(
        product(plain, columns), product(repacked, columns), rtol=1e-3, atol=1e-3
    )


def test_repacked_tensors_are_weights_only(graph: ggc.Graph, repacked: ggc.Tensor) -> None:
    with pytest.raises(ggc.Error, match="repacked for its device"):
        repacked.numpy()
    with pytest.raises(ggc.Error, match="repacked for its device"):
        repacked.set(np.zeros((64, 256)))
    for use in (
        lambda: graph.get_rows(repacked, graph.input("i", "i32", 2)),
        lambda: graph.view_1d(repacked, 32, 0),
        lambda: graph.cpy(graph.input("x", "f32", (256, 64)), repacked),
        lambda: graph.mul_mat(graph.input("a", "f32", (256, 4)), repacked),
    ):
        with pytest.raises(ggc.GraphError, match="only be the weight of mul_mat"):
            use()


def test_repacking_is_chosen_by_name(tmp_path: Path, store: ggc.Store) -> None:
    path = write_gguf(tmp_path / "f.gguf", {}, {"a": np.ones((4, 32), "f4")})
    asked: list[tuple[str, str, tuple[int, ...]]] = []

    def choose(name: str, info: ggc.TensorInfo) -> bool:
        asked.append((name, info.dtype, info.shape))
        return True

    tensor = store.gguf(path, repack=choose)["a"]
    assert asked == [("a", "f32", (4, 32))]
    assert not store._is_repacked(tensor)  # there is no such layout of f32
    assert (tensor.numpy() == 1).all()


def test_placeholder(store: ggc.Store) -> None:
    with pytest.raises(ggc.GraphError, match="multiple of 32"):
        store.placeholder("x", "q4_0", (33, 2))
    tensor = store.placeholder("x", "q4_0", (1 << 20, 1 << 20))
    assert tensor.ne == (1 << 20, 1 << 20, 1, 1)
    with pytest.raises(ggc.Error, match="no memory"):
        tensor.numpy()
    with pytest.raises(ggc.GraphError, match="choose another name"):
        store.placeholder("x", "f32", 1)
