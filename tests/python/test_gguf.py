"""Reading GGUF files, good and hostile."""

from __future__ import annotations

import random
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf_writer import write_gguf
from tools import run

import ggml_concurrent as ggc

METADATA = {
    "general.architecture": "test",
    "test.count": 7,
    "test.negative": -7,
    "test.ratio": 0.5,
    "test.flag": True,
    "test.words": ["a", "", "\N{SNOWMAN}"],
    "test.numbers": [1, 2, 3],
    "test.scores": [0.5, -1.5],
    "test.flags": [True, False],
}
TENSORS = {"a": np.arange(12, dtype="f4").reshape(3, 4), "b": np.ones(5, "f2")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "model.gguf", METADATA, TENSORS)


def test_metadata(path: Path) -> None:
    with ggc.GGUF(path) as file:
        assert file.metadata == METADATA
        assert isinstance(file.metadata["test.flag"], bool)
        assert (file.version, file.alignment) == (3, 32)


def test_tensors(path: Path) -> None:
    with ggc.GGUF(path) as file:
        assert list(file.tensors) == ["a", "b"]
        a, b = file.tensors.values()
    assert (a.dtype, a.ne, a.shape, a.nbytes) == ("f32", (4, 3, 1, 1), (3, 4), 48)
    assert (b.dtype, b.nbytes) == ("f16", 10)
    data = path.read_bytes()
    assert data[a.offset : a.offset + a.nbytes] == TENSORS["a"].tobytes()
    assert data[b.offset : b.offset + b.nbytes] == TENSORS["b"].tobytes()


def test_closed_file(path: Path) -> None:
    file = ggc.GGUF(path)
    file.close()
    assert list(file.tensors) == ["a", "b"]
    with pytest.raises(ggc.ClosedError, match="is closed"):
        _ = file.metadata


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ggc.GGUF(tmp_path / "missing")
    with pytest.raises(ggc.FormatError, match="not a regular file"):
        ggc.GGUF(tmp_path)
    text = tmp_path / "text"
    text.write_text("This is not a model.")
    with pytest.raises(ggc.FormatError, match="invalid magic"):
        ggc.GGUF(text)
    text.write_bytes(b"")
    with pytest.raises(ggc.FormatError):
        ggc.GGUF(text)


def test_every_truncation_is_refused(
    path: Path, store: ggc.Store, capfd: pytest.CaptureFixture
) -> None:
    data = path.read_bytes()
    end = max(t.offset + t.nbytes for t in ggc.GGUF(path).tensors.values())
    for n in range(end):
        path.write_bytes(data[:n])
        with pytest.raises(ggc.FormatError):
            store.gguf(path)
    assert len(store) == 0
    path.write_bytes(data[:end])
    assert len(store.gguf(path)) == 2
    assert capfd.readouterr().err == ""  # the reasons are in the exceptions


def test_truncation_is_told(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 40])
    with pytest.raises(
        ggc.FormatError, match=r"tensor 'b' ends at byte \d+, the file at \d+: it is"
    ):
        ggc.GGUF(path)


def _tensor_info(name: bytes, ne: list[int], kind: int, offset: int) -> bytes:
    head = struct.pack("<Q", len(name)) + name
    return head + struct.pack(f"<I{len(ne)}QIQ", len(ne), *ne, kind, offset)


def _file(path: Path, infos: list[bytes], data: int = 4096, pairs: bytes = b"", n: int = 0) -> Path:
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), n) + pairs + b"".join(infos)
    path.write_bytes(head + bytes(-len(head) % 32) + bytes(data))
    return path


@pytest.mark.parametrize(
    "info",
    [
        _tensor_info(b"x" * 64, [4], 0, 0),  # a name too long
        _tensor_info(b"x", [4, 4, 4, 4, 4], 0, 0),  # five dimensions
        _tensor_info(b"x", [2**62, 2**62], 0, 0),  # too many elements
        _tensor_info(b"x", [2**63], 0, 0),  # a negative size
        _tensor_info(b"x", [4], 99, 0),  # an unknown type
        _tensor_info(b"x", [4], 4, 0),  # a removed type
        _tensor_info(b"x", [100], 12, 0),  # rows that are no whole blocks
        _tensor_info(b"x", [4], 0, 32),  # not where the data starts
        _tensor_info(b"x", [4], 0, 2**63),
        _tensor_info(b"x", [2**40], 0, 0),  # beyond the file
        _tensor_info(b"x", [2**61], 0, 0),
    ],
)
def test_impossible_tensors(tmp_path: Path, store: ggc.Store, info: bytes) -> None:
    with pytest.raises(ggc.FormatError):
        store.gguf(_file(tmp_path / "x", [info]))


def test_tensors_that_hold_nothing(tmp_path: Path, store: ggc.Store) -> None:
    path = _file(tmp_path / "x", [_tensor_info(b"x", [4, 0], 0, 0)])
    with pytest.raises(ggc.FormatError, match="holds nothing"):
        store.gguf(path)
    path = _file(tmp_path / "x", [_tensor_info(b"", [4], 0, 0)])
    with pytest.raises(ggc.FormatError, match="holds nothing"):
        store.gguf(path)


@pytest.mark.parametrize("count", [2**31, 2**40, 2**63, 2**64 - 1])
def test_counts_beyond_the_file(tmp_path: Path, count: int) -> None:
    key = struct.pack("<Q", 1) + b"k"
    for pairs in (
        key + struct.pack("<IIQ", 9, 8, count),  # an array of strings
        key + struct.pack("<IIQ", 9, 4, count),  # an array of numbers
        key + struct.pack("<IQ", 8, count),  # a string
        struct.pack("<Q", count),  # a key
    ):
        with pytest.raises(ggc.FormatError):
            ggc.GGUF(_file(tmp_path / "x", [], pairs=pairs, n=1))
    with pytest.raises(ggc.FormatError):
        ggc.GGUF(_file(tmp_path / "x", [], n=count))


def test_data_that_the_device_cannot_use_in_place(tmp_path: Path, store: ggc.Store) -> None:
    """The file says that tensors are aligned to 4 bytes only: they are copied."""
    key = b"general.alignment"
    pairs = struct.pack("<Q", len(key)) + key + struct.pack("<II", 4, 4)
    infos = [_tensor_info(b"a", [3], 0, 0), _tensor_info(b"b", [3], 0, 12)]
    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 1) + pairs + b"".join(infos)
    values = np.arange(6, dtype="f4")
    path = tmp_path / "x"
    path.write_bytes(head + bytes(-len(head) % 4) + values.tobytes())
    tensors = store.gguf(path)
    assert tensors["a"].numpy().tolist() == [0, 1, 2]
    assert tensors["b"].numpy().tolist() == [3, 4, 5]


_READ = """
import sys
from pathlib import Path
import ggml_concurrent as ggc
good = bad = 0
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, flush=True)
    try:
        with ggc.Store() as store, ggc.GGUF(path) as file:
            str(file.metadata)
            for tensor in store.gguf(path).values():
                tensor.nbytes and tensor.numpy()
            good += 1
    except ggc.FormatError:
        bad += 1
print(good, bad)
"""


def test_damaged_files_never_end_the_process(path: Path, tmp_path: Path) -> None:
    """Bytes changed at random: an exception, or tensors that can be read."""
    dice, data = random.Random(915), path.read_bytes()
    folder = tmp_path / "damaged"
    folder.mkdir()
    header = ggc.GGUF(path).tensors["a"].offset
    for i in range(600):
        damaged = bytearray(data)
        for _ in range(dice.choice([1, 1, 2, 5])):
            damaged[dice.randrange(4, header)] = dice.choice([0, 1, 2, 8, 0x7F, 0x80, 0xFF])
        (folder / f"{i:03}").write_bytes(damaged)
    result = run(sys.executable, "-c", _READ, folder, timeout=120)
    assert result.returncode == 0, result.stdout[-500:]
    good, bad = map(int, result.stdout.split()[-2:])
    assert good > 0
    assert bad > 100
