"""The generated methods are those of the vendored ggml.h, and the generator refuses surprises."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from tools import ROOT, run

from ggml_concurrent import Graph
from ggml_concurrent._ops import OMITTED, SPECS

SCRIPT = ROOT / "scripts" / "generate_bindings.py"
OPS = ROOT / "python" / "ggml_concurrent" / "_ops.py"
HEADERS = ROOT / "vendor" / "ggml" / "include"


ADD = "GGML_API struct ggml_tensor * ggml_add("
NEW = "GGML_API struct ggml_tensor * ggml_new"


@pytest.fixture
def headers(tmp_path: Path) -> Path:
    """A copy of ggml's headers that a test may change."""
    if not HEADERS.is_dir():
        pytest.skip(f"ggml is not unpacked in {HEADERS.parent}; configure the build first")
    return Path(shutil.copytree(HEADERS, tmp_path / "include"))


def generate(headers: Path, *arguments: str | Path) -> tuple[int, str]:
    result = run(
        *(sys.executable, SCRIPT, "--ggml-include", headers, "--csrc", ROOT / "csrc"), *arguments
    )
    return result.returncode, result.stdout


def edit(header: Path, old: str, new: str) -> None:
    text = header.read_text(encoding="utf-8")
    assert old in text
    header.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_methods_are_up_to_date(headers: Path) -> None:
    code, output = generate(headers, "--ops", OPS, "--check")
    assert code == 0, output


def test_stale_methods_are_noticed(headers: Path, tmp_path: Path) -> None:
    stale = tmp_path / "_ops.py"
    stale.write_text(OPS.read_text(encoding="utf-8").replace("eps: float", "eps: int"))
    code, output = generate(headers, "--ops", stale, "--check")
    assert code == 1
    assert "stale" in output


def test_every_builder_of_the_header_is_a_method_or_omitted(headers: Path) -> None:
    text = (headers / "ggml.h").read_text(encoding="utf-8")
    found = re.findall(r"ggml_tensor\s*\*\s*(ggml_\w+)\s*\(\s*struct ggml_context\s*\*", text)
    assert len(found) > 180
    for name in found:
        assert (name.removeprefix("ggml_") in SPECS) != (name in OMITTED), name
    for name in SPECS:
        assert callable(getattr(Graph, name))
    assert all(reason.strip() for reason in OMITTED.values())


def test_new_builder_becomes_a_method(headers: Path, tmp_path: Path) -> None:
    edit(
        headers / "ggml.h",
        ADD,
        f"{NEW}(struct ggml_context * ctx, struct ggml_tensor * a, enum ggml_glu_op op, float s);"
        f"{ADD}",
    )
    code, output = generate(headers, "--ops", tmp_path / "_ops.py")
    assert code == 0, output
    text = (tmp_path / "_ops.py").read_text(encoding="utf-8")
    assert "def new(self, a: Tensor, op: str | int, s: float) -> Tensor:" in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            ADD,
            f"{NEW}(struct ggml_context * ctx, long double q); {ADD}",
            "no Python type for 'long",
        ),
        (ADD, f"{NEW}(struct ggml_context * ctx, int); {ADD}", "ggml_new: parameter"),
        ("GGML_API size_t  ggml_nbytes (", "GGML_API size_t  ggml_xbytes (", "ggml_nbytes is not"),
        ("ggml_soft_max_ext(", "ggml_soft_max_xxt(", "ggml_soft_max_ext"),
        ("GGML_API const char * ggml_version(void);", "template<int> f(int);", "not understood"),
    ],
)
def test_what_it_does_not_understand_is_an_error(
    headers: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = (headers / "ggml.h").read_text(encoding="utf-8")
    (headers / "ggml.h").write_text(re.sub(r"(?<=\w) +\(", " (", text))
    edit(headers / "ggml.h", old, new)
    code, output = generate(headers, "--ops", tmp_path / "_ops.py", "--out-dir", tmp_path)
    assert code == 2
    assert message in output
    assert "Traceback" not in output


def test_missing_headers_are_named(tmp_path: Path) -> None:
    code, output = generate(tmp_path, "--ops", tmp_path / "_ops.py")
    assert code == 2
    assert f"cannot read {tmp_path / 'ggml.h'}" in output
