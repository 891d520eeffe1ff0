"""The zoo's tiny Whisper as a model of whisper.cpp's: its weights, and an encoder to go with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ggml_concurrent import zoo

TARGET = Path(__file__).parent / "data" / "whisper.json"

#: (flash_attn, n_past, n_tokens) of the graphs compared.
PASSES = tuple((flash, *n) for flash in (False, True) for n in ((0, 5), (7, 2), (7, 1)))

#: Of the encoder, which only has to be there.
AUDIO_LAYERS, MELS = 1, 8


def tokens(first: int, n: int) -> list[int]:
    """Tokens at positions first, first + 1, ..."""
    return [(37 * i + 11) % 300 for i in range(first, first + n)]


def frame() -> np.ndarray:
    """What the encoder gives at all times, f32 of shape (width)."""
    width = zoo.GRAPHS["whisper-tiny"].parameters["n_text_state"]
    return np.random.default_rng(0).standard_normal(width, np.float32)


def tensors() -> dict[str, np.ndarray]:
    """All weights by their names; f16 where whisper.cpp has it so in models of f16."""
    found = encoder()
    for name in ("whisper-tiny", "whisper-cross-tiny"):
        with zoo.build(name, dtype="f16") as workload:
            for key, tensor in workload.store.tensors.items():
                if not key.startswith("kv_"):
                    found[key] = tensor.numpy()
    return found


def encoder() -> dict[str, np.ndarray]:
    """Weights of an encoder whose last norm forgets everything but its bias."""
    p = zoo.GRAPHS["whisper-tiny"].parameters
    width, n_ctx = p["n_text_state"], p["n_audio_ctx"]
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (n_ctx, width),
        "conv1.weight": (width, MELS, 3),
        "conv1.bias": (width, 1),
        "conv2.weight": (width, width, 3),
        "conv2.bias": (width, 1),
        "ln_post.weight": (width,),
    }
    for name in ("attn_ln", "mlp_ln"):
        shapes |= {f"blocks.0.{name}.weight": (width,), f"blocks.0.{name}.bias": (width,)}
    for name in ("attn.query", "attn.key", "attn.value", "attn.out"):
        shapes[f"blocks.0.{name}.weight"] = (width, width)
        if name != "attn.key":
            shapes[f"blocks.0.{name}.bias"] = (width,)
    for name, n_in, n_out in (("mlp.0", width, 4 * width), ("mlp.2", 4 * width, width)):
        shapes[f"blocks.0.{name}.weight"] = (n_out, n_in)
        shapes[f"blocks.0.{name}.bias"] = (n_out,)
    found = {"encoder.ln_post.bias": frame()}
    for name, shape in shapes.items():
        half = name.endswith(".weight") and len(shape) > 1
        found[f"encoder.{name}"] = np.zeros(shape, np.float16 if half else np.float32)
    return found
