"""The fuzz target: its corpus with any compiler, a bounded run of libFuzzer where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tools import ROOT

SECONDS = os.environ.get("GGC_FUZZ_SECONDS", "15")


def test_corpus(tmp_path: Path) -> None:
    program = tmp_path / "fuzz_plan"
    flags = ["-std=c11", "-g", "-O1", "-fsanitize=address,undefined", "-DFUZZ_STANDALONE"]
    sources = [*map(str, (ROOT / "csrc/core").glob("*.c")), str(ROOT / "tests/fuzz/fuzz_plan.c")]
    compiler = os.environ.get("CC", "cc").split()
    include = ["-I", str(ROOT / "csrc/include")]
    command = [*compiler, *flags, *include, *sources, "-lm", "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in built.stderr:
        pytest.skip("the compiler has no sanitizer libraries")
    assert built.returncode == 0, built.stderr
    lines = (ROOT / "tests/fuzz/corpus.txt").read_text().split()
    assert len(lines) > 100
    files = []
    for i, line in enumerate(lines):
        files.append(tmp_path / f"{i}")
        files[-1].write_bytes(bytes.fromhex(line))
    ran = subprocess.run([program, *files], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert f"passed: {len(lines)} inputs" in ran.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("clang") is None, reason="libFuzzer needs clang")
def test_libfuzzer(tmp_path: Path) -> None:
    source = tmp_path / "probe.c"
    source.write_text("int LLVMFuzzerTestOneInput(const char *d, long n) { return d == 0 && n; }\n")
    probe = ["clang", "-fsanitize=fuzzer", str(source), "-o", str(tmp_path / "probe")]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("this clang has no libFuzzer (libclang-rt-dev)")
    command = [str(ROOT / "scripts/fuzz"), "--seconds", SECONDS]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Done " in ran.stdout
