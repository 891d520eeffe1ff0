"""Fixtures of the Python tests."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ggml_concurrent as ggc
from ggml_concurrent import _native


def pytest_configure() -> None:
    """A shell's background job ignores interrupts, and so would all that the tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits for a build that goes on beside the tests comes last."""
    items.sort(key=lambda item: item.path.name == "test_dropin_llama.py")


@pytest.fixture(autouse=True, scope="session")
def tuning_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What tuning finds is kept apart from the user's."""
    folder = tmp_path_factory.mktemp("tuning")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GGML_CONCURRENT_CACHE", str(folder))
        yield folder


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
