"""Runs graphs of the zoo through Runner(device="cuda0", scheduled=True) on the simulated CUDA.

    python tests/cuda/run_sched.py FOLDER GRAPH...

FOLDER has the libraries (tests/cuda in a build).  Every computation gives the CPU's bits; from the
second on it is the backend's own CUDA graph that is launched, captured once, as in a program that
computes the same graph again and again.  Runners of ours have the graph in between, and one that
got no memory leaves it as it was.  Run as a program by test_bench_cuda.py: the libraries take
CUDA's place in the process.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from run_zoo import N_COMPUTES, Sim, check, results

from ggml_concurrent import zoo
from ggml_concurrent.bench.traffic import raw_bytes

SCHEDULED = {"streams": 1, "scheduled": True}
STREAMS = {"streams": 4, "always": True}


def run(sim: Sim, name: str) -> str:
    expected = results(name)
    sim.reset()
    with zoo.build(name, device="cuda0") as workload:
        start = {key: raw_bytes(tensor) for key, tensor in workload.store.tensors.items()}
        nodes = workload.graph.nodes
        for arguments in (SCHEDULED, STREAMS, SCHEDULED):
            for key, data in start.items():
                workload.store[key].set_raw(data)
            with workload.runner(**arguments) as runner:
                before = sim.counters()
                check(workload, runner, expected)
                counted = {key: n - before[key] for key, n in sim.counters().items()}
                assert runner.buffer_size > 0
            sim.check_clean()
            if arguments is SCHEDULED:
                assert counted["graphs"] == N_COMPUTES, "one split, and nothing on the CPU"
                assert counted["synchronises"] == N_COMPUTES, "inputs are not copied"
                assert counted["own_captures"] == 1
                assert counted["own_launches"] == N_COMPUTES - 1
                assert workload.graph.nodes == nodes, "the graph's own order"
        sim.sim.sim_fail(b"buffer", 1)
        with pytest.raises(MemoryError, match="ggml's scheduler could not lay out the graph"):
            workload.runner(**SCHEDULED)
        with workload.runner(**SCHEDULED) as runner:
            runner.compute()
    assert not any(sim.live().values()), sim.live()
    return f"{name}: {counted['own_launches']} launches of one captured graph"


def main() -> int:
    if len(sys.argv) < 3:
        print(__doc__)
        return 2
    sim = Sim(Path(sys.argv[1]).resolve())
    for name in sys.argv[2:]:
        print(run(sim, name), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
