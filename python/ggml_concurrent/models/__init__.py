"""Models that the builder can make graphs of, read from GGUF files.

`open_model` picks the architecture; `Model` says what all of them offer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FormatError
from .base import Model
from .gemma3 import Gemma3
from .llama import Llama
from .weights import Weights

if TYPE_CHECKING:
    from ..store import Store

__all__ = ["ARCHITECTURES", "Gemma3", "Llama", "Model", "model_class", "open_model"]

ARCHITECTURES: dict[str, type[Gemma3 | Llama]] = {cls.architecture: cls for cls in (Gemma3, Llama)}


def model_class(metadata: Mapping[str, Any]) -> type[Gemma3 | Llama]:
    """The class for a file with this metadata. Raises FormatError if we have no graphs for it."""
    name = metadata.get("general.architecture")
    cls = ARCHITECTURES.get(str(name))
    if cls is None:
        known = ", ".join(sorted(ARCHITECTURES))
        raise FormatError(f"architecture {name!r} is not supported (known: {known})")
    return cls


def open_model(store: Store, path: Path, metadata: Mapping[str, Any], cells: int) -> Model:
    """The model of a GGUF file, its weights loaded into `store`.

    metadata: the file's key/value pairs. cells: tokens that its cache holds.
    Raises FormatError for an architecture that we have no graphs for, and for damaged files.
    """
    return model_class(metadata)(metadata, Weights(store, path), store.zeros, cells)
