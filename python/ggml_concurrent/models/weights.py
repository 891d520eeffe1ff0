"""A model's weights: loaded from a GGUF file, looked up by name, checked for shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import FormatError
from ..store import Store

if TYPE_CHECKING:
    from ..gguf import TensorInfo
    from ..tensor import Tensor

EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"


class Source(Protocol):
    """Where a model's tensors come from."""

    @property
    def embedding(self) -> Tensor:
        """The embedding table, ne (width, vocabulary)."""

    @property
    def output(self) -> Tensor:
        """The output matrix, ne (width, vocabulary)."""

    def get(self, name: str, *ne: int) -> Tensor:
        """The tensor of that name. Raises FormatError if absent or, where ne is given, other."""

    def find(self, name: str, *ne: int) -> Tensor | None:
        """The same for a tensor that a model may lack."""

    def nbytes_per_token(self) -> int:
        """Bytes of weights that computing one token reads."""


class Weights:
    """The tensors of a GGUF file in a store.

    Matrices that only ever stand left in a matrix product go to the CPU's extra buffer types where
    one takes them (some quantised types are then laid out anew, which is faster and rounds
    differently: llama.cpp does the same). The embedding, of which rows are looked up, does not.
    A model without an output matrix uses its embedding as one; as an output it may be laid out
    anew as well, so it is then loaded a second time.
    """

    def __init__(self, store: Store, path: Path) -> None:
        self._tensors: Mapping[str, Tensor] = store.gguf(path, repack=_is_product_only)
        self.embedding = self.get(EMBEDDING)
        if OUTPUT in self._tensors:
            self.output = self.get(OUTPUT)
            self.tied = False
        else:
            # In a store of its own, because names are unique in one.
            self.output = Store().gguf(path, names=[EMBEDDING], repack=True)[EMBEDDING]
            self.tied = True

    def get(self, name: str, *ne: int) -> Tensor:
        """The tensor of that name. Raises FormatError if absent or, where ne is given, other."""
        tensor = self._tensors.get(name)
        if tensor is None:
            raise FormatError(f"the file has no tensor {name}")
        if ne and tensor.ne != ne + (1,) * (4 - len(ne)):
            raise FormatError(f"{name}: expected ne {ne} from the metadata, got {tensor.ne}")
        return tensor

    def find(self, name: str, *ne: int) -> Tensor | None:
        """The same for a tensor that a model may lack."""
        return self.get(name, *ne) if name in self._tensors else None

    def nbytes_per_token(self) -> int:
        """Bytes of weights that computing one token reads: all of them, the embedding one row."""
        total = sum(tensor.nbytes for tensor in self._tensors.values())
        if self.tied:
            return total  # the embedding is read whole, as the output matrix
        return total - self.embedding.nbytes + self.embedding.nbytes // self.embedding.ne[1]


def _is_product_only(name: str, info: TensorInfo) -> bool:
    return name.endswith(".weight") and name != EMBEDDING and info.ne[1] > 1
