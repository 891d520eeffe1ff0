"""Dense Llama, and Gemma 3: the graphs of `ggml_concurrent.models` with random weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..models import Gemma3, Llama
from ..models.cache import padded
from ..tensor import Tensor
from .builder import Builder
from .decoder import feed_tokens
from .workload import Entry


class RandomWeights:
    """Tensors for a `Model`, made when they are asked for.

    optional: names that `find` makes; a model that may lack a tensor lacks all others.
    """

    def __init__(
        self, b: Builder, width: int, n_vocab: int, *, tied: bool, optional: Collection[str] = ()
    ) -> None:
        self._b, self._optional = b, optional
        self._made: dict[str, Tensor] = {}
        self.embedding = b.table("token_embd.weight", width, n_vocab)
        self._made["token_embd.weight"] = self.embedding
        if tied:
            self.output = b.table_copy("token_embd.weight (output)", self.embedding)
        else:
            self.output = b.matrix("output.weight", width, n_vocab)

    def get(self, name: str, *ne: int) -> Tensor:
        """The tensor of that name and shape."""
        if name not in self._made:
            make = self._b.norm if "norm" in name else self._b.vector
            self._made[name] = self._b.matrix(name, *ne) if len(ne) > 1 else make(name, *ne)
        return self._made[name]

    def find(self, name: str, *ne: int) -> Tensor | None:
        """The same where the model has it."""
        return self.get(name, *ne) if name in self._optional else None

    def nbytes_per_token(self) -> int:
        """Bytes of all weights but the embedding."""
        return sum(t.nbytes for t in self._made.values()) - self.embedding.nbytes


def model(b: Builder, metadata: Mapping[str, Any], *, tied: bool = False) -> None:
    """The graph of the model class for this metadata."""
    classes = {cls.architecture: cls for cls in (Gemma3, Llama)}
    name = metadata["general.architecture"]
    width, n_vocab = metadata[f"{name}.embedding_length"], metadata[f"{name}.vocab_size"]
    weights = RandomWeights(b, width, n_vocab, tied=tied)
    n_kv = padded(b.n_past + b.n_tokens)
    made = classes[name](metadata, weights, b.cache, n_kv, flash_attn=b.flash_attn)
    made.build(b.g, b.n_tokens, n_kv)
    feed_tokens(b, made.cache, n_vocab)


def llama_metadata(
    layers: int, width: int, hidden: int, heads: int, kv_heads: int, vocab: int, base: float = 1e4
) -> dict[str, Any]:
    """GGUF metadata of a dense Llama."""
    keys = {
        "block_count": layers,
        "embedding_length": width,
        "feed_forward_length": hidden,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": base,
        "rope.dimension_count": width // heads,
        "context_length": 8192,
        "vocab_size": vocab,
    }
    return {"general.architecture": "llama", **{f"llama.{k}": v for k, v in keys.items()}}


def gemma3_metadata(
    layers: int, width: int, hidden: int, key_length: int, window: int, vocab: int
) -> dict[str, Any]:
    """GGUF metadata of a Gemma 3 with 4 query heads; every sixth layer attends to everything."""
    keys = {
        "block_count": layers,
        "embedding_length": width,
        "feed_forward_length": hidden,
        "attention.head_count": 4,
        "attention.head_count_kv": 1,
        "attention.key_length": key_length,
        "attention.value_length": key_length,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.sliding_window": window,
        "rope.freq_base": 1e6,
        "context_length": 32768,
        "vocab_size": vocab,
    }
    return {"general.architecture": "gemma3", **{f"gemma3.{k}": v for k, v in keys.items()}}


def _llama(name: str, about: str, metadata: Mapping[str, Any], dtype: str = "q4_0") -> Entry:
    return Entry(name, about, model, metadata, dtype, n_past=511)


def _gemma3(
    name: str, about: str, metadata: Mapping[str, Any], dtype: str, n_tokens: int, n_past: int
) -> Entry:
    options = {"tied": True}
    return Entry(name, about, model, metadata, dtype, n_tokens, n_past, options)


ENTRIES = [
    _llama("llama-0.4b", "Llama, 24 x 1024", llama_metadata(24, 1024, 4096, 16, 16, 32000)),
    _llama("llama-1b", "Llama 1B shape", llama_metadata(16, 2048, 8192, 32, 8, 128256, 5e5)),
    _llama("llama-7b", "Llama 2 7B shape", llama_metadata(32, 4096, 11008, 32, 32, 32000)),
    _llama(
        "llama-8b", "Llama 3 8B shape", llama_metadata(32, 4096, 14336, 32, 8, 128256, 5e5), "q8_0"
    ),
    Entry("llama-tiny", "for tests", model, llama_metadata(3, 64, 96, 4, 2, 300), "f32", 2, 7),
    _gemma3(
        "gemma3-270m",
        "Gemma 3 270M shape",
        gemma3_metadata(18, 640, 2048, 256, 512, 262144),
        "q8_0",
        1,
        511,
    ),
    _gemma3(
        "gemma3-1b",
        "Gemma 3 1B shape",
        gemma3_metadata(26, 1152, 6912, 256, 512, 262144),
        "q4_0",
        1,
        511,
    ),
    _gemma3("gemma3-tiny", "for tests", gemma3_metadata(7, 64, 96, 32, 4, 300), "f32", 2, 7),
]
