"""Fixtures of the Python tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ggml_concurrent as ggc
from ggml_concurrent import _native


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2023)


@pytest.fixture
def store() -> Iterator[ggc.Store]:
    with ggc.Store() as opened:
        yield opened


@pytest.fixture
def graph() -> Iterator[ggc.Graph]:
    with ggc.Graph() as opened:
        yield opened


@pytest.fixture
def no_leak() -> Iterator[None]:
    """Fails the test if it leaves C objects behind."""
    gc.collect()
    before = _native.live_handles()
    yield
    gc.collect()
    assert _native.live_handles() == before


@pytest.fixture(scope="session")
def gguf_types() -> list[str]:
    """Types that arrays can be converted to."""
    return ["f32", "f16", "bf16", "q8_0", "q4_0", "q5_1", "q4_K", "q6_K"]


@pytest.fixture
def root() -> Path:
    return Path(__file__).resolve().parents[2]
