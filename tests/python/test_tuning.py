"""Runners that find the fastest way by themselves, and remember it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ggml_concurrent as ggc
from ggml_concurrent import runner as runner_module
from ggml_concurrent import zoo


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tuning"
    monkeypatch.setenv("GGML_CONCURRENT_CACHE", str(folder))
    return folder


@pytest.fixture
def towers() -> Iterator[zoo.Workload]:
    with zoo.build("towers-256") as workload:
        yield workload


def settle(runner: ggc.Runner) -> int:
    n = 0
    while not runner.settled:
        runner.compute()
        n += 1
        assert n < 500
    return n


def test_every_computation_gives_the_same_bits(towers: zoo.Workload, folder: Path) -> None:
    with towers.runner(streams=1) as runner:
        expected = towers.run(runner)
    with towers.runner() as runner:
        strategies = set()
        while not runner.settled:
            strategies.add((runner.plan.stats.n_streams, len(runner.ways)))
            results = towers.run(runner)
            assert all(np.array_equal(results[name], expected[name]) for name in expected)
        assert {n for n, _ in strategies} == {1, 2}


def test_the_fastest_is_kept_and_remembered(towers: zoo.Workload, folder: Path) -> None:
    with towers.runner() as runner:
        assert not runner.settled
        assert len(runner.ways) == 4
        assert settle(runner) > 4
        best = next(way for way in runner.ways if way.in_use)
        assert all(way.microseconds > 0 for way in runner.ways)
        # a way that was dropped has times of then: the machine may have been faster
        compared = [way for way in runner.ways if not way.dropped]
        assert best in compared
        assert best.microseconds <= 1.04 * min(way.microseconds for way in compared)
        assert runner.plan.stats.n_streams == best.streams
        assert f"{best.threads} threads" in str(best)
    assert len(list(folder.iterdir())) == 1
    with towers.runner() as runner:
        assert runner.settled
        assert [(w.strategy, w.streams, w.threads) for w in runner.ways] == [
            (best.strategy, best.streams, best.threads)
        ]


def test_remembered_by_other_processes(folder: Path) -> None:
    program = """
from ggml_concurrent import zoo
with zoo.build("towers-256") as workload, workload.runner() as runner:
    print(runner.settled)
    runner.settle()
"""
    environment = os.environ | {"GGML_CONCURRENT_CACHE": str(folder)}
    said = [
        subprocess.run(
            [sys.executable, "-c", program], env=environment, check=True, capture_output=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert said == [[b"False"], [b"True"]]


def test_other_threads_other_choice(towers: zoo.Workload, folder: Path) -> None:
    for streams, threads in ((2, 2), (2, 3), (3, 3)):
        with towers.runner(streams=streams, threads=threads) as runner:
            assert not runner.settled
            settle(runner)
    assert len(list(folder.iterdir())) == 3


def test_damaged_file_is_told_and_replaced(towers: zoo.Workload, folder: Path) -> None:
    with towers.runner() as runner:
        settle(runner)
    (path,) = folder.iterdir()
    good = path.read_text()
    path.write_text(good[:-3])
    with pytest.warns(RuntimeWarning, match=f"{path.name} is damaged"):
        runner = towers.runner()
    with runner:
        settle(runner)
    assert path.read_text().splitlines()[:2] == good.splitlines()[:2]
    assert path.read_text().endswith("end\n")


def test_folder_that_cannot_be_written(
    towers: zoo.Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GGML_CONCURRENT_CACHE", str(tmp_path / "file" / "inside"))
    with towers.runner() as runner:
        with pytest.warns(RuntimeWarning, match="cannot be kept") as told:
            settle(runner)
        runner.compute()  # no further warning, which would be an error here
    assert len(told) == 1


def test_where_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGML_CONCURRENT_CACHE", "")
    assert runner_module.tuning_folder() is None
    monkeypatch.delenv("GGML_CONCURRENT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert runner_module.tuning_folder() == tmp_path / "cache" / "ggml-concurrent"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")  # to be ignored, the standard says
    monkeypatch.setenv("HOME", str(tmp_path))
    assert runner_module.tuning_folder() == tmp_path / ".cache" / "ggml-concurrent"
    (tmp_path / "full").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "full"))
    assert runner_module.tuning_folder() is None


def test_nothing_is_kept_where_the_user_says_so(
    towers: zoo.Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GGML_CONCURRENT_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with towers.runner() as runner:
        settle(runner)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [{"streams": 1}, {"tune": "off"}, {"always": True}])
def test_nothing_to_tune(towers: zoo.Workload, folder: Path, arguments: dict[str, object]) -> None:
    with towers.runner(**arguments) as runner:
        assert runner.settled
        assert len(runner.ways) == 1
        runner.compute()
    assert not folder.exists()


def test_wrong_choice(towers: zoo.Workload) -> None:
    with pytest.raises(ggc.GraphError, match="tune is 'fast', expected one of off, quick"):
        towers.runner(tune="fast")


def test_bits_that_depend_on_threads_are_not_tried_with_fewer(
    graph: ggc.Graph, store: ggc.Store, rng: np.random.Generator
) -> None:
    for i in range(4):
        x = graph.input(f"x{i}", "f32", (64, 512))
        labels = store.array(f"labels{i}", rng.random((512, 64), np.float32))
        graph.output(graph.cross_entropy_loss(graph.sqr(x), labels), f"loss{i}")
    with ggc.Runner(graph, streams=2, threads=2) as runner:
        assert {way.threads for way in runner.ways} == {2}
