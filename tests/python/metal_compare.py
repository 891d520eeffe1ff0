"""Barriers and planning time, ggml-metal's beside ours: tests/metal/ from Python, and the graphs.

    PYTHONPATH=python python tests/python/metal_compare.py BUILD/tests/metal_compare.so

prints the tables as Markdown.
"""

from __future__ import annotations

import ctypes
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import tiny_llama
from gguf_writer import write_gguf
from tools import ROOT

import ggml_concurrent as ggc
from ggml_concurrent._native import ffi, ggml
from ggml_concurrent.models import open_model


@dataclass(frozen=True)
class Figures:
    """Kernels and barriers of one graph; tests/metal/compare.h says which is which."""

    plain: int
    reorder: int
    reorder_kernels: int
    ours: int
    minimum: int
    kernels: int
    units: int
    phase_barriers: int
    phase_minimum: int
    tracked: int

    @property
    def fused_anew(self) -> int:
        """Kernels that ggml-metal saves because its reorder has made other nodes neighbours."""
        return max(0, self.kernels - self.reorder_kernels)


class _Figures(ctypes.Structure):
    _fields_ = [(field.name, ctypes.c_int32) for field in fields(Figures)]


class _Seconds(ctypes.Structure):
    _fields_ = [("reorder", ctypes.c_double), ("plan", ctypes.c_double)]


# Where tensors begin: at multiples of so many bytes; None: not allocated. ggml-metal's tracker
# takes ranges that only touch for overlapping; a large multiple leaves gaps.
MEMORIES = {"none yet": None, "allocated": 32, "allocated, gaps": 1 << 16}


class MetalError(Exception):
    """The comparison itself failed: a refuted plan, a fusion across two units."""


class Metal:
    """The library made from ggml-metal's portable source."""

    def __init__(self, path: Path) -> None:
        self._lib = ctypes.CDLL(str(path.resolve()))
        pointer = ctypes.c_void_p
        for name, result, arguments in (
            ("metal_compare", ctypes.c_char_p, (pointer, pointer)),
            ("metal_compare_allocated", ctypes.c_char_p, (pointer, ctypes.c_size_t, pointer)),
            ("metal_time", ctypes.c_char_p, (pointer, ctypes.c_int, pointer)),
            ("metal_random_graph", pointer, (ctypes.c_uint64, ctypes.c_uint32)),
            ("metal_layered_graph", pointer, (ctypes.c_uint32,)),
            ("metal_graph_get", pointer, (pointer,)),
            ("metal_graph_free", None, (pointer,)),
        ):
            function = getattr(self._lib, name)
            function.restype, function.argtypes = result, arguments

    def compare(self, graph: int, memory: str = "none yet") -> Figures:
        """Figures of the graph at an address, in one state of its memory (MEMORIES)."""
        found = _Figures()
        alignment = MEMORIES[memory]
        if alignment is None:
            message = self._lib.metal_compare(graph, ctypes.byref(found))
        else:
            message = self._lib.metal_compare_allocated(graph, alignment, ctypes.byref(found))
        self._check(message)
        return Figures(**{field.name: getattr(found, field.name) for field in fields(Figures)})

    def time(self, graph: int, repeats: int) -> tuple[float, float]:
        """Seconds for one reorder of ggml-metal's and one plan of ours, means of runs in turns."""
        seconds = _Seconds()
        self._check(self._lib.metal_time(graph, repeats, ctypes.byref(seconds)))
        return seconds.reorder / repeats, seconds.plan / repeats

    @contextmanager
    def random_graph(self, seed: int, n_steps: int) -> Iterator[int]:
        yield from self._graph(self._lib.metal_random_graph(seed, n_steps))

    @contextmanager
    def layered_graph(self, n_layers: int) -> Iterator[int]:
        yield from self._graph(self._lib.metal_layered_graph(n_layers))

    def _graph(self, handle: int) -> Iterator[int]:
        try:
            yield self._lib.metal_graph_get(handle)
        finally:
            self._lib.metal_graph_free(handle)

    @staticmethod
    def _check(message: bytes | None) -> None:
        if message is not None:
            raise MetalError(message.decode())


def address(graph: ggc.Graph) -> int:
    return int(ffi.cast("uintptr_t", graph._graph))


#
# Models of real shape and tiny size
#

GEMMA_LAYERS, WIDTH, KEY, HIDDEN, HEADS, VOCABULARY = 18, 32, 16, 64, 4, 300


def write_gemma(path: Path) -> Path:
    """Gemma 3 270M's layers, each a few hundred random weights."""
    rng = np.random.default_rng(270)
    sizes = {
        "attn_q": (HEADS * KEY, WIDTH),
        "attn_k": (KEY, WIDTH),
        "attn_v": (KEY, WIDTH),
        "attn_output": (WIDTH, HEADS * KEY),
        "ffn_gate": (HIDDEN, WIDTH),
        "ffn_up": (HIDDEN, WIDTH),
        "ffn_down": (WIDTH, HIDDEN),
        **dict.fromkeys(("attn_q_norm", "attn_k_norm"), (KEY,)),
        **dict.fromkeys(
            ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"), (WIDTH,)
        ),
    }
    tensors = {
        "token_embd.weight": rng.normal(0, 1, (VOCABULARY, WIDTH)).astype(np.float32),
        "output_norm.weight": np.ones(WIDTH, np.float32),
    }
    for i in range(GEMMA_LAYERS):
        for name, size in sizes.items():
            tensors[f"blk.{i}.{name}.weight"] = rng.normal(0, 0.1, size).astype(np.float32)
    metadata = {
        "general.architecture": "gemma3",
        "gemma3.context_length": 512,
        "gemma3.embedding_length": WIDTH,
        "gemma3.block_count": GEMMA_LAYERS,
        "gemma3.feed_forward_length": HIDDEN,
        "gemma3.attention.head_count": HEADS,
        "gemma3.attention.head_count_kv": 1,
        "gemma3.attention.key_length": KEY,
        "gemma3.attention.value_length": KEY,
        "gemma3.attention.layer_norm_rms_epsilon": 1e-6,
        "gemma3.attention.sliding_window": 512,
        "gemma3.rope.freq_base": 1e6,
    }
    return write_gguf(path, metadata, tensors)


def write_llama(path: Path) -> Path:
    return tiny_llama.write(path, tiny_llama.Shape(block_count=16, biases=True))


def model(write: Callable[[Path], Path], n_tokens: int) -> Callable[[ggc.Graph, ggc.Store], None]:
    def build(g: ggc.Graph, store: ggc.Store) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder) / "tiny.gguf")
            with ggc.GGUF(path) as file:
                metadata = dict(file.metadata)
            open_model(store, path, metadata, 256).build(g, n_tokens, 256)

    return build


#
# Other graphs
#


def seed_layer(g: ggc.Graph, store: ggc.Store) -> None:
    """The layer of docs/example-seed.md."""
    page = (ROOT / "docs" / "example-seed.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    namespace: dict[str, Any] = {}
    exec(code, namespace)  # noqa: S102  the page is ours
    namespace["layer"](g, namespace["weights"](store, np.random.default_rng(915)))


def towers(g: ggc.Graph, store: ggc.Store) -> None:
    """Eight chains of eight layers that do not meet, built tower by tower."""
    for tower in range(8):
        x = g.input(f"x{tower}", "f32", ne=(WIDTH,))
        for layer in range(8):
            x = g.relu(g.mul_mat(store.zeros(f"w{tower}.{layer}", "f32", ne=(WIDTH, WIDTH)), x))
        g.output(x, name=f"y{tower}")


class _Layers:
    """What the two transformers below are put together from."""

    def __init__(self, g: ggc.Graph, store: ggc.Store) -> None:
        self.g, self.store = g, store
        self.x = g.input("x", "f32", ne=(WIDTH, 1))
        self._n = 0

    def weight(self, *ne: int) -> ggc.Tensor:
        self._n += 1
        return self.store.zeros(f"w{self._n}", "f32", ne=ne)

    def product(self, x: ggc.Tensor, n_out: int) -> ggc.Tensor:
        return self.g.mul_mat(self.weight(x.ne[0], n_out), x)

    def norm(self, x: ggc.Tensor) -> ggc.Tensor:
        return self.g.mul(self.g.rms_norm(x, eps=1e-6), self.weight(x.ne[0]))

    def attention(self, x: ggc.Tensor) -> ggc.Tensor:
        """One head over 64 cells."""
        g = self.g
        q, k, v = (self.product(x, WIDTH) for _ in range(3))
        keys, values = self.weight(WIDTH, 64), self.weight(WIDTH, 64)
        for cache, new in ((keys, k), (values, v)):
            g.expand(g.cpy(new, g.view_1d(cache, WIDTH, offset=256 * WIDTH // 16)))
        scores = g.soft_max(g.mul_mat(keys, q))
        return self.product(g.mul_mat(g.cont(g.transpose(values)), scores), WIDTH)

    def feed_forward(self, x: ggc.Tensor) -> ggc.Tensor:
        up, gate = self.product(x, HIDDEN), self.product(x, HIDDEN)
        return self.product(self.g.swiglu_split(gate, up), WIDTH)


def parallel_layers(g: ggc.Graph, store: ggc.Store) -> None:
    """Attention and feed-forward side by side (GPT-J, Falcon, Command R)."""
    net = _Layers(g, store)
    x = net.x
    for _ in range(8):
        y = net.norm(x)
        attended = net.attention(y)
        g.expand(attended)
        x = g.add(g.add(net.feed_forward(y), x), attended)
    g.output(x, name="y")


def experts(g: ggc.Graph, store: ggc.Store) -> None:
    """Layers with eight experts, of which four are used, beside one that always is."""
    net = _Layers(g, store)
    x, n, used = net.x, 8, 4
    for _ in range(8):
        x = g.add(net.attention(net.norm(x)), x)
        y = net.norm(x)
        probabilities = g.soft_max(net.product(y, n))
        ids = g.argsort_top_k(probabilities, used)
        weights = g.reshape_2d(g.get_rows(g.reshape_3d(probabilities, 1, n, 1), ids), used, 1)
        weights = g.div(weights, g.clamp(g.sum_rows(weights), 6e-5, 1e30))
        weights = g.reshape_3d(weights, 1, used, 1)
        g.expand(weights)
        y3 = g.reshape_3d(y, WIDTH, 1, 1)
        up, gate = (g.mul_mat_id(net.weight(WIDTH, HIDDEN, n), y3, ids) for _ in range(2))
        down = g.mul_mat_id(net.weight(HIDDEN, WIDTH, n), g.swiglu_split(gate, up), ids)
        down = g.mul(down, weights)
        parts = [
            g.view_2d(down, WIDTH, 1, nb1=down.nb[2], offset=i * down.nb[1]) for i in range(used)
        ]
        for part in parts:
            g.expand(part)
        total = parts[0]
        for part in parts[1:]:
            total = g.add(total, part)
        x = g.add(g.add(total, net.feed_forward(y)), x)
    g.output(x, name="y")


GRAPHS: dict[str, Callable[[ggc.Graph, ggc.Store], None]] = {
    "Gemma 3, 18 layers, decoding": model(write_gemma, 1),
    "Gemma 3, 18 layers, prompt of 16": model(write_gemma, 16),
    "Llama, 16 layers with biases, decoding": model(write_llama, 1),
    "Llama, 16 layers with biases, prompt of 16": model(write_llama, 16),
    "the seed's Llama layer": seed_layer,
    "8 towers of 8 layers": towers,
    "8 layers, attention beside feed-forward": parallel_layers,
    "8 layers of experts": experts,
}


@contextmanager
def built(name: str) -> Iterator[int]:
    """The address of one of GRAPHS, not allocated but for weights and caches."""
    with ggc.Store() as store, ggc.Graph(size=8192) as g:
        GRAPHS[name](g, store)
        yield address(g)


#
# The tables
#

HEAD = """\
| graph | memory | kernels | plain | ggml-metal's reorder | ours | minimum | tracker on ours |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"""


def row(name: str, memory: str, f: Figures) -> str:
    anew = f" ({f.fused_anew} fused anew)" if f.fused_anew else ""
    return (
        f"| {name} | {memory} | {f.kernels} | {f.plain} | {f.reorder}{anew} | {f.ours} "
        f"| {f.minimum} | {f.tracked} |"
    )


def total(figures: list[Figures]) -> Figures:
    rows = (asdict(f).values() for f in figures)
    return Figures(*(sum(column) for column in zip(*rows, strict=True)))


def barrier_table(metal: Metal, n_random: int) -> Iterator[str]:
    yield HEAD
    for name in GRAPHS:
        with built(name) as graph:
            for memory in MEMORIES:
                yield row(name, memory, metal.compare(graph, memory))
    for memory in MEMORIES:
        figures = []
        for seed in range(n_random):
            with metal.random_graph(seed, 1 + seed % 60) as graph:
                figures.append(metal.compare(graph, memory))
        yield row(f"{n_random} random graphs, sums", memory, total(figures))


def time_table(metal: Metal) -> Iterator[str]:
    yield "| layers | nodes | ggml-metal's reorder, ms | our plan, ms |"
    yield "| ---: | ---: | ---: | ---: |"
    for n_layers in (3, 30, 300, 3000):
        with metal.layered_graph(n_layers) as graph:
            reorder, plan = metal.time(graph, max(3, 300 // n_layers))
            n_nodes = ggml.ggml_graph_n_nodes(ffi.cast("struct ggml_cgraph *", graph))
        yield f"| {n_layers} | {n_nodes} | {reorder * 1e3:.3f} | {plan * 1e3:.3f} |"


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    metal = Metal(Path(sys.argv[1]))
    print(*barrier_table(metal, 600), "", *time_table(metal), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
