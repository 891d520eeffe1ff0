"""Chains of small products that never meet: the widest graph there is."""

from __future__ import annotations

from collections.abc import Mapping

from .builder import Builder
from .workload import Entry


def towers(b: Builder, parameters: Mapping[str, int]) -> None:
    """`towers` chains of `layers` square matrices of `width` each, ReLU between them."""
    p = parameters
    for t in range(p["towers"]):
        x = b.activations(f"x{t}", p["width"], b.n_tokens)
        for i in range(p["layers"]):
            x = b.g.relu(b.g.mul_mat(b.matrix(f"w{t}.{i}", p["width"], p["width"]), x))
        b.output(x, f"y{t}")


def _entry(name: str, n: int, layers: int, width: int, dtype: str) -> Entry:
    about = f"{n} independent chains of {layers} matrices of {width} x {width}"
    return Entry(name, about, towers, {"towers": n, "layers": layers, "width": width}, dtype)


ENTRIES = [
    _entry("towers-1024", 8, 8, 1024, "f16"),
    _entry("towers-256", 8, 8, 256, "f32"),
    _entry("towers-tiny", 5, 3, 32, "f32"),
]
