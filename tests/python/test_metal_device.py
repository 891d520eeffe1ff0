"""Graphs on a real Metal device. Without one nothing of this runs; see test_metal_sim.py."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from metal_sim import on_metal
from test_zoo import TINY, assert_same_bits, plain_results

import ggml_concurrent as ggc
from ggml_concurrent import zoo

pytestmark = pytest.mark.skipif(sys.platform != "darwin", reason="no Metal here")

REPEATS = 20  # races show now and then


def opened(name: str) -> zoo.Workload:
    try:
        return on_metal(name)
    except ggc.DeviceError as error:
        if "there is no Metal device" not in str(error):
            raise
        pytest.skip(str(error))


def results(name: str, **runner: object) -> dict[str, np.ndarray]:
    with opened(name) as workload:
        try:
            with workload.runner(device="metal", **runner) as metal:
                return workload.run(metal)
        except ggc.DeviceError as error:
            if "backend cannot compute" not in str(error):
                raise
            pytest.skip(str(error))


@pytest.mark.parametrize("name", TINY)
def test_phases_change_no_bit(name: str) -> None:
    """Beside the serial order on the same device; to the CPU's there is a small difference."""
    expected = results(name, streams=1)
    for seed in range(REPEATS):
        assert_same_bits(results(name, tune="off", always=True, stress_seed=seed), expected)
    for key, array in plain_results(name).items():
        scale = float(np.abs(array.astype(np.float64)).max())
        assert np.abs(expected[key].astype(np.float64) - array).max() < 0.02 * scale, key
