"""Hyperparameters of a model, read from a GGUF file's metadata.

Fields carry the names of the metadata keys, with dots as underscores and without the architecture
in front: `gemma3.attention.head_count_kv` is `attention_head_count_kv`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import FormatError


class Keys:
    """Typed look-up of one architecture's keys; every error names the key and what was expected."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._metadata = metadata
        self.architecture = str(metadata.get("general.architecture", ""))

    def integer(self, key: str, default: int | None = None) -> int:
        """A count."""
        value = self._number(key, default)
        if value != int(value) or value < 0:
            raise FormatError(f"{self._full(key)}: expected a count, got {value!r}")
        return int(value)

    def real(self, key: str, default: float | None = None) -> float:
        """A number."""
        return float(self._number(key, default))

    def text(self, key: str, default: str) -> str:
        """A word."""
        return str(self._metadata.get(self._full(key), default))

    def raw(self, key: str) -> Any:
        """The value as it stands in the file, None if it is absent."""
        return self._metadata.get(self._full(key))

    def _full(self, key: str) -> str:
        return f"{self.architecture}.{key}"

    def _number(self, key: str, default: float | None) -> float:
        value = self._metadata.get(self._full(key), default)
        if value is None:
            raise FormatError(f"the file has no {self._full(key)}")
        if not isinstance(value, (int, float)):
            raise FormatError(
                f"{self._full(key)}: expected one number, got {type(value).__name__} "
                "(values that differ from layer to layer are not supported)"
            )
        return value


@dataclass(frozen=True)
class Config:
    """What the graphs of a decoder-only transformer need to know."""

    architecture: str
    context_length: int
    embedding_length: int
    block_count: int
    feed_forward_length: int
    attention_head_count: int
    attention_head_count_kv: int
    attention_key_length: int
    attention_value_length: int
    attention_layer_norm_rms_epsilon: float
    rope_dimension_count: int
    rope_freq_base: float
    rope_freq_scale: float
    attention_layer_norm_epsilon: float = 0.0  # of models that subtract the mean
    # Sliding-window attention (Gemma 3): 0 where there is none.
    attention_sliding_window: int = 0
    windowed: tuple[bool, ...] = ()  # per layer: does it look back only that far?
    rope_freq_base_swa: float = 10000.0
    final_logit_softcapping: float = 0.0

    @property
    def key_width(self) -> int:
        """Elements of one token's keys in one layer."""
        return self.attention_key_length * self.attention_head_count_kv

    @property
    def value_width(self) -> int:
        """Elements of one token's values in one layer."""
        return self.attention_value_length * self.attention_head_count_kv

    def is_windowed(self, layer: int) -> bool:
        """Whether that layer looks back only over the sliding window."""
        return bool(self.windowed) and self.windowed[layer]


def read_config(metadata: Mapping[str, Any], *, rms: bool = True) -> Config:
    """The hyperparameters that every supported architecture shares. Raises FormatError.

    rms: whether its norms leave the mean as it is; the file has the epsilon of one kind.
    """
    keys = Keys(metadata)
    width = keys.integer("embedding_length")
    heads = keys.integer("attention.head_count")
    if heads == 0 or width == 0:
        raise FormatError(f"{keys.architecture}: {heads} heads over {width} elements")
    key_length = keys.integer("attention.key_length", width // heads)
    config = Config(
        architecture=keys.architecture,
        context_length=keys.integer("context_length"),
        embedding_length=width,
        block_count=keys.integer("block_count"),
        feed_forward_length=keys.integer("feed_forward_length"),
        attention_head_count=heads,
        attention_head_count_kv=keys.integer("attention.head_count_kv", heads),
        attention_key_length=key_length,
        attention_value_length=keys.integer("attention.value_length", width // heads),
        attention_layer_norm_rms_epsilon=(
            keys.real("attention.layer_norm_rms_epsilon") if rms else 0.0
        ),
        attention_layer_norm_epsilon=0.0 if rms else keys.real("attention.layer_norm_epsilon"),
        rope_dimension_count=keys.integer("rope.dimension_count", key_length),
        rope_freq_base=keys.real("rope.freq_base", 10000.0),
        rope_freq_scale=_rope_freq_scale(keys),
    )
    if config.attention_head_count_kv == 0 or heads % config.attention_head_count_kv != 0:
        raise FormatError(
            f"{keys.architecture}: {heads} query heads cannot share "
            f"{config.attention_head_count_kv} key heads evenly"
        )
    return config


def _rope_freq_scale(keys: Keys) -> float:
    """1 / the linear scaling factor. Other kinds of scaling change more than the frequency."""
    kind = keys.text("rope.scaling.type", "linear")
    if kind not in ("none", "linear"):
        raise FormatError(f'rope scaling "{kind}" is not supported, only "none" and "linear" are')
    factor = keys.real("rope.scaling.factor", keys.real("rope.scale_linear", 0.0))
    return 1.0 if kind == "none" or factor == 0.0 else 1.0 / factor
