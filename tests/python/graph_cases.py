"""Graphs of the zoo that llama.cpp builds as well, and how they are told to it.

The tiny ones are compared with its own (`CASES`); others can be written as models that it loads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gguf_writer import Encoded, write_gguf

from ggml_concurrent import zoo
from ggml_concurrent._native import ffi, ggml
from ggml_concurrent.dtypes import dtype_of
from ggml_concurrent.zoo.lora import ALPHA

TARGET = Path(__file__).parent / "data" / "graphs"


@dataclass(frozen=True)
class Case:
    """A graph to compare.

    entry: the graph of the zoo, that of the case's own name by default.
    passes: (n_past, n_tokens) of the graphs compared.
    flash_attn: whether both build attention as one operation.
    embeddings: whether the model is an encoder, whose result are embeddings instead of logits.
    differences: an operation of llama.cpp's list that ours lacks, or the other way round -> why.
    """

    entry: str = ""
    passes: tuple[tuple[int, int], ...] = ((0, 5), (7, 1))
    flash_attn: bool = False
    embeddings: bool = False
    differences: Mapping[str, str] = field(default_factory=dict)


# Only models of certain numbers of layers are known to have no low-rank queries.
_DEEPSEEK2 = {"deepseek2.attention.q_lora_rank": 0}

CASES = {
    "llama-tiny": Case(),
    "llama-tiny-flash": Case("llama-tiny", flash_attn=True),
    "llama-lora-tiny": Case(),
    "llama-lora2-tiny": Case(),
    "gemma3-tiny": Case(),
    "gemma3-tiny-flash": Case("gemma3-tiny", flash_attn=True),
    "falcon-tiny": Case(),
    "falcon-tiny-flash": Case("falcon-tiny", flash_attn=True),
    "phi2-tiny": Case(),
    "command-r-tiny": Case(),
    "cohere2-tiny": Case(),
    "cohere2-tiny-flash": Case("cohere2-tiny", flash_attn=True),
    "bert-tiny": Case(passes=((0, 5), (0, 1)), embeddings=True),
    "bert-tiny-flash": Case("bert-tiny", passes=((0, 5),), embeddings=True, flash_attn=True),
    "qwen2moe-tiny": Case(),
    "qwen2moe-tiny-flash": Case("qwen2moe-tiny", flash_attn=True),
    "deepseek2-tiny": Case(),
    "deepseek2-tiny-flash": Case("deepseek2-tiny", flash_attn=True),
    "qwen3next-tiny": Case(),
    "qwen3next-tiny-flash": Case("qwen3next-tiny", flash_attn=True),
    "falcon-h1-tiny": Case(),
    "falcon-h1-tiny-flash": Case("falcon-h1-tiny", flash_attn=True),
    "rwkv7-tiny": Case(passes=((0, 5), (7, 2))),
    "rwkv7-tiny-token": Case(
        "rwkv7-tiny",
        passes=((7, 1),),
        differences={
            "CONCAT": "of the previous token with the none before the only one",
            "CONT": "in its place, since a Graph refuses tensors that hold nothing",
        },
    ),
}


def build(name: str, **options: Any) -> zoo.Workload:
    """The graph of a case, or of any other name; options are those of `zoo.build`."""
    case = CASES.get(name, Case())
    return zoo.build(case.entry or name, flash_attn=case.flash_attn, **options)


def _gguf_metadata(name: str) -> dict[str, Any]:
    """The graph's parameters with what a file needs besides; it has no vocabulary."""
    case = CASES.get(name, Case())
    parameters = zoo.GRAPHS[case.entry or name].parameters
    more = _DEEPSEEK2 if parameters["general.architecture"] == "deepseek2" else {}
    return {"general.name": name, "tokenizer.ggml.model": "no_vocab", **parameters, **more}


def _gguf_tensors(workload: zoo.Workload) -> dict[str, np.ndarray | Encoded]:
    """The model's weights under their names: not caches, nor copies, nor adapters."""
    return {
        name: _array(tensor)
        for name, tensor in workload.store.tensors.items()
        if not name.startswith("cache_") and not name.endswith(" (output)") and ".lora_" not in name
    }


def write_model(name: str, folder: Path) -> tuple[Path, list[str]]:
    """Writes the model of a graph, and its LoRA adapters if it has any, for llama.cpp to load.

    Tensors of adapters end in lora_a.0, lora_b.0, lora_a.1, ...
    """
    adapters: dict[str, dict[str, np.ndarray | Encoded]] = defaultdict(dict)
    metadata = _gguf_metadata(name)
    with build(name, n_past=0, zero_caches=True) as workload:
        model = write_gguf(folder / f"{name}.gguf", metadata, _gguf_tensors(workload))
        for long_name, tensor in workload.store.tensors.items():
            if ".lora_" in long_name:
                kept, adapter = long_name.rsplit(".", 1)
                adapters[adapter][kept] = _array(tensor)
        adapter_metadata = {
            "general.architecture": metadata["general.architecture"],
            "general.type": "adapter",
            "adapter.type": "lora",
            "adapter.lora.alpha": ALPHA,
        }
        paths = [
            str(write_gguf(folder / f"{name}-adapter-{i}.gguf", adapter_metadata, tensors))
            for i, tensors in adapters.items()
        ]
    return model, paths[::-1]  # llama.cpp keeps them in a hash map, which gives the last one first


def _array(tensor: Any) -> np.ndarray | Encoded:
    if tensor.dtype in ("f32", "f16"):
        return tensor.numpy().reshape(_shape(tensor.ne))
    ne = _shape(tensor.ne)[::-1]

    def read() -> np.ndarray:
        data = np.empty(tensor.nbytes, np.uint8)
        ggml.ggml_backend_tensor_get(tensor._ptr, ffi.from_buffer(data), 0, data.nbytes)
        return data

    return Encoded(dtype_of(tensor.dtype).id, ne, tensor.nbytes, read)


def _shape(ne: tuple[int, ...]) -> tuple[int, ...]:
    n = max((i for i in range(4) if ne[i] > 1), default=0) + 1
    return tuple(reversed(ne[:n]))


def tokens_of(name: str, n_past: int, n_tokens: int) -> dict[str, list[int]]:
    """Tokens before those of the graph, and the graph's own."""
    with build(name, n_past=n_past, n_tokens=n_tokens) as workload:
        tokens = workload.feeds["tokens"].tolist()
    return {"past": past_tokens(n_past), "tokens": tokens}


def past_tokens(n_past: int) -> list[int]:
    """Tokens evaluated before those of the graph."""
    return list(range(1, n_past + 1))
