"""The zoo's Whisper against the graphs that whisper.cpp builds for the same tiny model.

tests/python/data/whisper.json was recorded by scripts/record_whisper.py.
"""

from __future__ import annotations

import difflib
import json
from typing import Any

import numpy as np
import pytest
from whisper_tiny import PASSES, TARGET, frame, tokens

from ggml_concurrent import zoo

IDS = [f"{n_past}+{n}{'-flash' if flash else ''}" for flash, n_past, n in PASSES]


def load(index: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(TARGET.read_text(encoding="utf-8"))["passes"][index]
    assert (found["flash_attn"], found["n_past"], found["n_tokens"]) == PASSES[index]
    return found


def lines(nodes: list[list[Any]]) -> list[str]:
    return [" ".join(map(str, node)) for node in nodes]


def assert_same_nodes(workload: zoo.Workload, theirs: list[list[Any]]) -> None:
    ours = lines([[node.op, *node.ne] for node in workload.graph.nodes])
    diff = difflib.unified_diff(lines(theirs), ours, "whisper.cpp", "zoo", n=2)
    assert ours == lines(theirs), "\n".join(list(diff)[:80])


@pytest.mark.parametrize("index", range(len(PASSES)), ids=IDS)
def test_decoder_nodes_are_whisper_cpps(index: int) -> None:
    flash_attn, n_past, n = PASSES[index]
    with zoo.build("whisper-tiny", flash_attn=flash_attn, n_past=n_past, n_tokens=n) as workload:
        assert_same_nodes(workload, load(index)["decoder"])


@pytest.mark.parametrize("index", range(len(PASSES)), ids=IDS)
def test_cross_nodes_are_whisper_cpps(index: int) -> None:
    with zoo.build("whisper-cross-tiny", flash_attn=PASSES[index][0]) as workload:
        assert_same_nodes(workload, load(index)["cross"])


def caches_after(name: str, options: dict[str, Any], **feeds: np.ndarray) -> dict[str, np.ndarray]:
    """What a graph leaves in its caches that were empty, with other inputs than its own."""
    with zoo.build(name, zero_caches=True, **options) as workload:
        workload.feeds.update(feeds)
        with workload.runner(streams=2, always=True) as runner:
            workload.run(runner)
            return workload.caches()


@pytest.mark.parametrize("index", range(len(PASSES)), ids=IDS)
def test_logits_are_whisper_cpps(index: int) -> None:
    """Of the last token; encoder frames to cross attention to decoder, step by step."""
    flash_attn, n_past, n = PASSES[index]
    options = {"dtype": "f16", "flash_attn": flash_attn}
    frames = np.tile(frame(), (30, 1))
    cross = caches_after("whisper-cross-tiny", options, embd_enc=frames)

    def decode(first: int, ids: list[int], past: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        size = {"n_past": first, "n_tokens": len(ids)}
        with zoo.build("whisper-tiny", zero_caches=True, **options, **size) as workload:
            workload.feeds["embd"] = np.array(ids, np.int32)
            for name, values in (cross | past).items():
                workload.store[name].set(values)
            with workload.runner(streams=2, always=True) as runner:
                return workload.run(runner)

    past = decode(0, tokens(0, n_past), {}) if n_past else {}
    past.pop("logits", None)
    ours = decode(n_past, tokens(n_past, n), past)["logits"].reshape(n, -1)[-1]
    theirs = np.array(load(index)["logits"])
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3 * np.abs(theirs).max())
