"""A Llama model of a few thousand random weights: its file, and its logits by NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf_writer import write_gguf

Array = np.ndarray


@dataclass(frozen=True)
class Shape:
    """Sizes, named as in GGUF metadata. head_count_kv < head_count: grouped queries."""

    embedding_length: int = 64
    block_count: int = 3
    feed_forward_length: int = 96
    head_count: int = 4
    head_count_kv: int = 2
    context_length: int = 512
    rope_freq_base: float = 10000.0
    eps: float = 1e-5
    vocab: int = 300
    tied: bool = False
    biases: bool = False
    rope_factors: bool = False

    @property
    def length(self) -> int:
        """Elements of one head."""
        return self.embedding_length // self.head_count


def tensors(shape: Shape, seed: int = 0) -> dict[str, Array]:
    """Random weights by their names in the file, NumPy's order of dimensions."""
    rng = np.random.default_rng(seed)
    width, hidden = shape.embedding_length, shape.feed_forward_length
    kv = shape.length * shape.head_count_kv

    def matrix(n_out: int, n_in: int) -> Array:
        return rng.normal(0, n_in**-0.5, (n_out, n_in)).astype(np.float32)

    result = {
        "token_embd.weight": rng.normal(0, 1, (shape.vocab, width)).astype(np.float32),
        "output_norm.weight": rng.uniform(0.5, 1.5, width).astype(np.float32),
    }
    if not shape.tied:
        result["output.weight"] = matrix(shape.vocab, width)
    if shape.rope_factors:
        factors = rng.uniform(1, 4, shape.length // 2).astype(np.float32)
        result["rope_freqs.weight"] = factors
    for i in range(shape.block_count):
        blk = f"blk.{i}."
        sizes = {
            "attn_q": (width, width),
            "attn_k": (kv, width),
            "attn_v": (kv, width),
            "attn_output": (width, width),
            "ffn_gate": (hidden, width),
            "ffn_up": (hidden, width),
            "ffn_down": (width, hidden),
        }
        for name in ("attn_norm", "ffn_norm"):
            result[f"{blk}{name}.weight"] = rng.uniform(0.5, 1.5, width).astype(np.float32)
        for name, size in sizes.items():
            result[f"{blk}{name}.weight"] = matrix(*size)
            if shape.biases:
                bias = rng.normal(0, 0.1, size[0]).astype(np.float32)
                result[f"{blk}{name}.bias"] = bias
    return result


def metadata(shape: Shape, **changes: Any) -> dict[str, Any]:
    """Metadata of the file, the vocabulary included. A change to None leaves a key out."""
    special = ["<unk>", "<s>", "</s>"]
    words = special + [f"<0x{b:02X}>" for b in range(256)]
    words += [f"w{i}" for i in range(shape.vocab - len(words))]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (shape.vocab - 259)
    result = {
        "general.architecture": "llama",
        "llama.context_length": shape.context_length,
        "llama.embedding_length": shape.embedding_length,
        "llama.block_count": shape.block_count,
        "llama.feed_forward_length": shape.feed_forward_length,
        "llama.attention.head_count": shape.head_count,
        "llama.attention.head_count_kv": shape.head_count_kv,
        "llama.attention.layer_norm_rms_epsilon": shape.eps,
        "llama.rope.freq_base": shape.rope_freq_base,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.scores": [-float(i) for i in range(len(words))],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    result.update(changes)
    return {key: value for key, value in result.items() if value is not None}


def write(path: Path, shape: Shape, seed: int = 0, **changes: Any) -> Path:
    """The model as a file; keyword arguments change its metadata ("." written as "__")."""
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return write_gguf(path, metadata(shape, **dotted), tensors(shape, seed))


#
# The same model in NumPy
#


def logits(shape: Shape, w: dict[str, Array], ids: list[int]) -> Array:
    """Logits after each of `ids`, shape (len(ids), vocabulary).

    Keys and values are rounded to f16, as the cache does.
    """
    x = w["token_embd.weight"][ids]
    for i in range(shape.block_count):
        layer = {
            name.split(".", 2)[2]: array
            for name, array in w.items()
            if name.startswith(f"blk.{i}.")
        }
        x = x + _attention(shape, layer, _norm(shape, x, layer["attn_norm.weight"]), w)
        y = _norm(shape, x, layer["ffn_norm.weight"])
        gate = _linear(layer, "ffn_gate", y)
        hidden = gate / (1 + np.exp(-gate)) * _linear(layer, "ffn_up", y)
        x = x + _linear(layer, "ffn_down", hidden)
    output = w.get("output.weight", w["token_embd.weight"])
    return _norm(shape, x, w["output_norm.weight"]) @ output.T


def _norm(shape: Shape, x: Array, weight: Array) -> Array:
    mean = np.mean(x.astype(np.float64) ** 2, axis=-1, keepdims=True)
    return (x / np.sqrt(mean + shape.eps) * weight).astype(np.float32)


def _linear(layer: dict[str, Array], name: str, x: Array) -> Array:
    return x @ layer[f"{name}.weight"].T + layer.get(f"{name}.bias", np.float32(0))


def _attention(shape: Shape, layer: dict[str, Array], x: Array, w: dict[str, Array]) -> Array:
    n, length = len(x), shape.length
    factors = w.get("rope_freqs.weight")
    q = _rope(shape, _linear(layer, "attn_q", x).reshape(n, -1, length), factors)
    k = _rope(shape, _linear(layer, "attn_k", x).reshape(n, -1, length), factors)
    v = _linear(layer, "attn_v", x).reshape(n, -1, length)
    group = shape.head_count // shape.head_count_kv
    k, v = (np.repeat(t.astype(np.float16).astype(np.float32), group, axis=1) for t in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k) * length**-0.5
    scores = np.where(np.tril(np.ones((n, n), bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed = np.einsum("hqk,khd->qhd", weights, v).reshape(n, -1)
    return _linear(layer, "attn_output", mixed.astype(np.float32))


def _rope(shape: Shape, x: Array, factors: Array | None) -> Array:
    """Rotates neighbours of x, shape (tokens, heads, length)."""
    half = np.arange(shape.length // 2)
    frequency = shape.rope_freq_base ** (-2.0 * half / shape.length)
    if factors is not None:
        frequency = frequency / factors
    angle = np.arange(len(x))[:, None, None] * frequency
    even, odd = x[..., 0::2], x[..., 1::2]
    out = np.empty_like(x)
    out[..., 0::2] = even * np.cos(angle) - odd * np.sin(angle)
    out[..., 1::2] = even * np.sin(angle) + odd * np.cos(angle)
    return out
