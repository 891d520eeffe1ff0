"""The fusions that ggml's source knows, against those that csrc/ggml/fusions.def was written for.

Another ggml fails here where its backends fuse something else, or under other conditions. Read what
the failure names, bring fusions.def and tests/c/test_fuse.c up to it, then record what is there:

    python tests/python/test_fusions_vendored.py --record
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tools import ROOT, normal_build

DATA = Path(__file__).parent / "data" / "fusions.json"
SOURCE = Path(os.environ.get("GGML_SOURCE_DIR") or ROOT / "vendor" / "ggml") / "src"
CPU, CUDA, METAL = (
    "ggml-cpu/ggml-cpu.c",
    "ggml-cuda/ggml-cuda.cu",
    "ggml-metal/ggml-metal-fusion.cpp",
)
BACKENDS = {CPU: "cpu", CUDA: "cuda", METAL: "metal"}
FILES = [*BACKENDS, "ggml-impl.h", "ggml.c"]  # the last two: what all backends ask

# functions that decide on fusions, and ggml's helpers for them
DECIDES = re.compile(r"fuse|fusion|match_moe")
NOT_DECIDING = re.compile(r"fusion_info|fusion_label|alloc_deps|get_id|disable_fusion")
HELPERS = re.compile(r"\bggml_can_fuse\w*(?=\()|\bggml_check_edges(?=\()")
FUNCTION = re.compile(r"^(?:[\w:]+[\s*&]+)+(\w+)\(([^;{}]*)\)\s*\{", re.MULTILINE)
OPERATION = r"(?:GGML_(?:UNARY_)?OP_\w+|\bop\b|\bbias_op\b)"
MENTION = re.compile(
    rf"\{{\s*(?P<list>{OPERATION}(?:\s*,\s*{OPERATION})*)\s*,?\s*\}}"
    rf"|\bops\[(?P<index>\d+)\]\s*=\s*(?P<item>{OPERATION});"
    r"|->op\s*(?P<test>[!=]=)\s*GGML_OP_(?P<tested>\w+)"
)
TABLE_ROW = re.compile(r"\{\s*GGML_METAL_FUSION_(\w+),\s*ops_(\w+),")
TABLE_OPS = re.compile(r"std::vector<ggml_op>\s+ops_(\w+)\s*=\s*\{([^}]*)\}")
WITHOUT_WORK = {"VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE", "NONE"}


#
# Reading ggml's source
#


def without_comments(text: str) -> str:
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return re.sub(r"//[^\n]*", "", text)


def functions_of(text: str) -> dict[str, str]:
    """Bodies by name, those of overloads in a row. A forward declaration has none."""
    bodies = {}
    for match in FUNCTION.finditer(text):
        depth, end = 0, match.end() - 1
        for end in range(match.end() - 1, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                break
        bodies[match[1]] = bodies.get(match[1], "") + text[match.start() : end + 1]
    return bodies


def short(names: str) -> str:
    return " ".join(re.sub(r"GGML_(?:UNARY_)?OP_", "", name).strip() for name in names.split(","))


def mentions(body: str) -> list[str]:
    """What a function says about operations, in order: lists of them, and comparisons."""
    found: list[str] = []
    for match in MENTION.finditer(body):
        if match["list"]:
            found.append(short(match["list"]))
        elif match["test"]:
            found.append(f"{match['test']} {match['tested']}")
        elif match["index"] == "0":
            found.append(short(match["item"]))
        else:  # ops[1] = ..., after ops[0] = ...
            found[-1] += " " + short(match["item"])
    return found


def digest(body: str) -> str:
    return hashlib.sha256(" ".join(body.split()).encode()).hexdigest()[:12]


def file_record(name: str) -> dict[str, Any]:
    """All that one source file says about fusions."""
    text = without_comments((SOURCE / name).read_text(encoding="utf-8"))
    record: dict[str, Any] = {}
    for function, body in functions_of(text).items():
        if DECIDES.search(function) and not NOT_DECIDING.search(function):
            record[function] = {"says": mentions(body), "digest": digest(body)}
    lists = {key: short(ops).split() for key, ops in TABLE_OPS.findall(text)}
    table = [f"{row}: {' '.join(lists[ops])}" for row, ops in TABLE_ROW.findall(text)]
    if table:
        record["ggml_metal_fusions"] = {"says": table, "digest": digest("\n".join(table))}
    return record


def users_of_helpers() -> dict[str, int]:
    """Files of the backends that ask ggml whether nodes can be fused, and how often they do."""
    users = {}
    for folder in ("ggml-cpu", "ggml-cuda", "ggml-metal"):
        for path in sorted((SOURCE / folder).rglob("*")):
            if path.suffix in {".c", ".cpp", ".cu", ".cuh", ".h", ".m"}:
                text = without_comments(path.read_text(encoding="utf-8", errors="replace"))
                if n := len(HELPERS.findall(text)):
                    users[path.relative_to(SOURCE).as_posix()] = n
    return users


def current() -> dict[str, Any]:
    return {"files": {name: file_record(name) for name in FILES}, "users": users_of_helpers()}


#
# Comparing
#


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return json.loads(DATA.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    missing = [name for name in FILES if not (SOURCE / name).exists()]
    if missing:
        pytest.skip(f"no {', '.join(missing)} in {SOURCE}: run vendor/fetch_ggml.py")
    return current()


def differences(name: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """What changed in one file, function by function."""
    for function in sorted({*old, *new}):
        if function not in new:
            yield f"{name}: {function} is gone"
        elif function not in old:
            says = "; ".join(new[function]["says"])
            yield f"{name}: {function} is new; it speaks of: {says}"
        elif old[function]["says"] != new[function]["says"]:
            yield f"{name}: {function} speaks of other operations"
            before, now = old[function]["says"], new[function]["says"]
            yield from (f"  no longer: {text}" for text in before if text not in now)
            yield from (f"  new: {text}" for text in now if text not in before)
        elif old[function]["digest"] != new[function]["digest"]:
            yield f"{name}: {function} decides differently about the same operations"


@pytest.mark.parametrize("name", FILES)
def test_fusions_are_the_recorded_ones(
    name: str, recorded: dict[str, Any], found: dict[str, Any]
) -> None:
    changes = list(differences(name, recorded["files"][name], found["files"][name]))
    assert not changes, "\n".join(["ggml's fusions have changed.", *changes, __doc__ or ""])


def test_no_other_file_fuses(recorded: dict[str, Any], found: dict[str, Any]) -> None:
    assert found["users"] == recorded["users"], (
        f"other files, or other numbers of places, ask ggml whether nodes can be fused\n{__doc__}"
    )


def test_a_new_fusion_is_noticed(recorded: dict[str, Any], found: dict[str, Any]) -> None:
    """The comparison itself: a list more, a condition less."""
    text = (SOURCE / CUDA).read_text(encoding="utf-8")
    body = functions_of(without_comments(text))["ggml_cuda_try_fuse"]
    more = body.replace("{ GGML_OP_UNARY, GGML_OP_SQR }", "{ GGML_OP_UNARY, GGML_OP_CUMSUM }", 1)
    less = body.replace("with_bias", "true", 1)
    assert body not in (more, less)
    for changed, expected in ((more, "new: UNARY CUMSUM"), (less, "decides differently")):
        new = dict(found["files"][CUDA])
        new["ggml_cuda_try_fuse"] = {"says": mentions(changed), "digest": digest(changed)}
        assert expected in "\n".join(differences(CUDA, recorded["files"][CUDA], new))


#
# Against fusions.def
#

# Parts of one fusion that the source puts together at run time: see ROUTER in fusions.def.
ROUTER = {
    "start": ("SOFT_MAX", "UNARY", "UNARY SQRT"),
    "choice": ("RESHAPE ARGSORT VIEW GET_ROWS", "RESHAPE ADD ARGSORT VIEW GET_ROWS"),
    "norm": ("", "RESHAPE SUM_ROWS CLAMP DIV RESHAPE"),
    "scale": ("", "SCALE"),
}
# Lists that are no fusion: loops over two operations, parts of the router, kinds of UNARY.
NO_FUSION = {
    "MUL_MAT MUL_MAT_ID",
    "RESHAPE SOFT_MAX RESHAPE",
    "RESHAPE SUM_ROWS CLAMP",
    *itertools.chain(*ROUTER.values()),
    *("SILU", "SIGMOID", "SOFTPLUS", "RELU", "TANH"),
}


@pytest.fixture(scope="module")
def told() -> dict[str, set[tuple[str, ...]]]:
    """The entries of fusions.def by backend, as the test program of that table lists them."""
    build = normal_build()
    program = build / "tests" / "test_fuse_table"
    if not program.exists() and "GGC_BUILD_DIR" not in os.environ:
        pytest.skip("the C tests are not built: run scripts/test, or set GGC_BUILD_DIR")
    lines = subprocess.run(
        [str(program), "--list"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    entries: dict[str, set[tuple[str, ...]]] = {}
    for line in lines:
        backend, operations = line.split(": ")
        entries.setdefault(backend, set()).add(tuple(operations.split()))
    return entries


def with_products(operations: str) -> Iterator[str]:
    """A list for either kind of product; where a scale is part of it, the two have lists apart."""
    kinds = [("MUL_MAT", "ADD"), ("MUL_MAT_ID", "ADD_ID")]
    if operations.startswith("op RESHAPE REPEAT GET_ROWS MUL"):
        del kinds[0]
    elif operations.startswith("op MUL"):
        del kinds[1]
    for op, bias in kinds:
        yield re.sub(r"\bop\b", op, re.sub(r"\bbias_op\b", bias, operations))


def sequences(record: dict[str, Any]) -> Iterator[str]:
    """The op sequences that one source file fuses."""
    for says in (function["says"] for function in record.values()):
        for text in says:
            if text.startswith(("==", "!=")) or text in NO_FUSION:
                continue
            operations = text.partition(": ")[2] or text
            yield from with_products(operations)
    if "ggml_cuda_topk_moe_fusion" in record:
        yield from (" ".join(filter(None, parts)) for parts in itertools.product(*ROUTER.values()))


def is_told(sequence: str, entries: set[tuple[str, ...]]) -> bool:
    """Whether entries that overlap, as the library joins them, reach from end to end."""
    nodes = tuple(op for op in sequence.split() if op not in WITHOUT_WORK)
    end, at = 1, 0
    while at < end < len(nodes):
        end = max([end, *(at + len(e) for e in entries if nodes[at : at + len(e)] == e)])
        at += 1
    return end >= len(nodes)


@pytest.mark.parametrize("name", BACKENDS)
def test_every_fusion_is_told(
    name: str, found: dict[str, Any], told: dict[str, set[tuple[str, ...]]]
) -> None:
    wanted = set(sequences(found["files"][name]))
    assert len(wanted) >= {CPU: 1, CUDA: 40, METAL: 20}[name]
    missing = sorted(s for s in wanted if not is_told(s, told[BACKENDS[name]]))
    assert not missing, f"csrc/ggml/fusions.def does not tell what {name} may fuse: {missing}"


def main() -> int:
    if sys.argv[1:] != ["--record"]:
        print(__doc__)
        return 2
    DATA.write_text(json.dumps(current(), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
