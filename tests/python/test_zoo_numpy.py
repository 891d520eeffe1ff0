"""Graphs of the zoo that llama.cpp does not build, against the same models written with NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from ggml_concurrent import zoo

Array = np.ndarray


class Model:
    """Weights, caches as they were before the run, and inputs of a graph, in f64."""

    def __init__(self, workload: zoo.Workload) -> None:
        self.parameters: Mapping[str, Any] = workload.entry.parameters
        self.tensors = {n: t.numpy().astype(float) for n, t in workload.store.tensors.items()}
        self.feeds = workload.feeds

    def __getitem__(self, name: str) -> Array:
        return self.tensors[name]

    def linear(self, name: str, x: Array) -> Array:
        y = x @ self[f"{name}.weight"].T
        return y + self.tensors.get(f"{name}.bias", 0)

    def layer_norm(self, name: str, x: Array) -> Array:
        return normed(x, 1e-5) * self[f"{name}.weight"] + self[f"{name}.bias"]


def normed(x: Array, eps: float) -> Array:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)


def rms_normed(x: Array, eps: float) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def heads_of(x: Array, heads: int) -> Array:
    """(tokens, width) to (heads, tokens, length)."""
    return x.reshape(len(x), heads, -1).swapaxes(0, 1)


def attend(q: Array, k: Array, v: Array, mask: Array | float = 0.0) -> Array:
    """All of shape (heads, tokens, length); the result of shape (tokens, width)."""
    scores = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]) + mask
    return (softmax(scores) @ v).swapaxes(0, 1).reshape(q.shape[1], -1)


def causal(n_past: int, n: int) -> Array:
    later = np.arange(n_past + n)[None, :] > (n_past + np.arange(n))[:, None]
    return np.where(later, -np.inf, 0.0)


def assert_like(found: Array, expected: Array) -> None:
    """Equal but for the rounding of f16 caches and of GELU's table."""
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) < 5e-3 * np.linalg.norm(expected)


def run(name: str, **options: Any) -> tuple[Model, dict[str, Array]]:
    with zoo.build(name, **options) as workload:
        model = Model(workload)
        with workload.runner(streams=2, always=True) as runner:
            return model, workload.run(runner)


# --- Whisper -------------------------------------------------------------------------------------


def whisper_cache(found: Array, layers: int, *, by_element: bool) -> Array:
    """(layers, cells, width)."""
    if not by_element:
        return found.reshape(layers, -1, found.shape[-1])
    return found.reshape(layers, found.shape[-1], -1).swapaxes(1, 2)


def whisper_decoder(m: Model, n_past: int, *, flash: bool) -> Array:
    p, n = m.parameters, len(m.feeds["embd"])
    layers, heads = p["n_text_layer"], p["n_text_head"]
    cached = {
        f"{kind}.{part}": whisper_cache(
            m[f"kv_{kind}.{part}"], layers, by_element=part == "v" and not flash
        )
        for kind in ("self", "cross")
        for part in ("k", "v")
    }
    table = m["decoder.token_embedding.weight"]
    x = table[m.feeds["embd"]] + m["decoder.positional_embedding"][n_past : n_past + n]
    for i in range(layers):
        name = f"decoder.blocks.{i}"
        y = m.layer_norm(f"{name}.attn_ln", x)
        q, k, v = (m.linear(f"{name}.attn.{part}", y) for part in ("query", "key", "value"))
        # Cached keys carry the root of the scale; half of it is left for the queries.
        root = (q.shape[1] // heads) ** -0.25
        k = np.concatenate([cached["self.k"][i, :n_past], k * root]) / root
        v = np.concatenate([cached["self.v"][i, :n_past], v])
        y = attend(*(heads_of(t, heads) for t in (q, k, v)), causal(n_past, n))
        x = x + m.linear(f"{name}.attn.out", y)
        q = m.linear(f"{name}.cross_attn.query", m.layer_norm(f"{name}.cross_attn_ln", x))
        k, v = cached["cross.k"][i] / root, cached["cross.v"][i]
        y = attend(*(heads_of(t, heads) for t in (q, k, v)))
        x = x + m.linear(f"{name}.cross_attn.out", y)
        y = gelu(m.linear(f"{name}.mlp.0", m.layer_norm(f"{name}.mlp_ln", x)))
        x = x + m.linear(f"{name}.mlp.2", y)
    return m.layer_norm("decoder.ln", x) @ table.T


@pytest.mark.parametrize(("n_past", "n_tokens"), [(0, 5), (7, 1), (9, 3)])
@pytest.mark.parametrize("flash", [False, True], ids=["", "flash"])
def test_whisper_decoder(n_past: int, n_tokens: int, flash: bool) -> None:
    model, found = run("whisper-tiny", n_past=n_past, n_tokens=n_tokens, flash_attn=flash)
    assert_like(found["logits"].reshape(n_tokens, -1), whisper_decoder(model, n_past, flash=flash))


@pytest.mark.parametrize("n_tokens", [30, 11])
@pytest.mark.parametrize("flash", [False, True], ids=["", "flash"])
def test_whisper_cross(n_tokens: int, flash: bool) -> None:
    m, found = run("whisper-cross-tiny", n_tokens=n_tokens, flash_attn=flash)
    layers, frames = m.parameters["n_text_layer"], m.feeds["embd_enc"].astype(float)
    root = (m.parameters["n_text_state"] // m.parameters["n_text_head"]) ** -0.25
    keys = whisper_cache(found["kv_cross.k"], layers, by_element=False)
    values = whisper_cache(found["kv_cross.v"], layers, by_element=not flash)
    for i in range(layers):
        name = f"decoder.blocks.{i}.cross_attn"
        assert_like(keys[i, :n_tokens], m.linear(f"{name}.key", frames) * root)
        assert_like(values[i, :n_tokens], m.linear(f"{name}.value", frames))


# --- diffusion transformers ----------------------------------------------------------------------


def modulated(x: Array, shift: Array, scale: Array) -> Array:
    return normed(x, 1e-6) * (1 + scale) + shift


def sd3_qkv(m: Model, name: str, x: Array) -> list[Array]:
    heads = m.parameters["num_heads"]
    q, k, v = (heads_of(t, heads) for t in np.split(m.linear(f"{name}.qkv", x), 3, axis=1))
    if m.parameters["qk_norm"] == "rms":
        q = rms_normed(q, 1e-6) * m[f"{name}.ln_q.weight"]
        k = rms_normed(k, 1e-6) * m[f"{name}.ln_k.weight"]
    return [q, k, v]


def sd3(m: Model) -> Array:
    p = m.parameters
    streams = {"context_block": m.feeds["context"].astype(float), "x_block": m.feeds["x"]}
    n_text, c = len(streams["context_block"]), silu(m.feeds["c"].astype(float))
    for i in range(p["depth"]):
        last, qkv, mods = i == p["depth"] - 1, [], {}
        for part, x in streams.items():
            name = f"joint_blocks.{i}.{part}"
            n_mods = 2 if last and part == "context_block" else 6
            n_mods += 3 * (part == "x_block" and i <= p["d_self"])
            mods[part] = np.split(m.linear(f"{name}.adaLN_modulation.1", c), n_mods)
            qkv.append(sd3_qkv(m, f"{name}.attn", modulated(x, *mods[part][:2])))
        joint = [np.concatenate(pair, axis=1) for pair in zip(*qkv, strict=True)]
        parts = np.split(attend(*joint), [n_text])
        for (part, x), y in zip(list(streams.items()), parts, strict=True):
            if last and part == "context_block":
                continue
            name = f"joint_blocks.{i}.{part}"
            gate, shift, scale, mlp_gate, *more = mods[part][2:]
            z = x + m.linear(f"{name}.attn.proj", y) * gate
            if more:
                own = attend(*sd3_qkv(m, f"{name}.attn2", modulated(x, *more[:2])))
                z += m.linear(f"{name}.attn2.proj", own) * more[2]
            hidden = gelu(m.linear(f"{name}.mlp.fc1", modulated(z, shift, scale)))
            streams[part] = z + m.linear(f"{name}.mlp.fc2", hidden) * mlp_gate
    shift, scale = np.split(m.linear("final_layer.adaLN_modulation.1", c), 2)
    return m.linear("final_layer.linear", modulated(streams["x_block"], shift, scale))


def rotated(x: Array, positions: Array, axes: tuple[int, ...], theta: float) -> Array:
    """Pairs of neighbours as complex numbers, turned; x of shape (heads, tokens, length)."""
    angles = np.concatenate(
        [
            np.outer(positions[:, a], theta ** (-2 * np.arange(n // 2) / n))
            for a, n in enumerate(axes)
        ],
        axis=1,
    )
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def flux(m: Model, across: int) -> dict[str, Array]:
    p = m.parameters
    streams = {name: m.feeds[name].astype(float) for name in ("txt", "img")}
    n_txt, vec = len(streams["txt"]), silu(m.feeds["vec"].astype(float))
    where = [(0, 0, 0)] * n_txt + [(0, i // across, i % across) for i in range(len(streams["img"]))]
    for i in range(p["depth"]):
        qkv, mods = [], {}
        for part, x in streams.items():
            name = f"double_blocks.{i}.{part}"
            mods[part] = np.split(m.linear(f"{name}_mod.lin", vec), 6)
            y = m.linear(f"{name}_attn.qkv", modulated(x, *mods[part][:2]))
            q, k, v = (heads_of(t, p["num_heads"]) for t in np.split(y, 3, axis=1))
            q = rms_normed(q, 1e-6) * m[f"{name}_attn.norm.query_norm.scale"]
            k = rms_normed(k, 1e-6) * m[f"{name}_attn.norm.key_norm.scale"]
            qkv.append((q, k, v))
        q, k, v = (np.concatenate(pair, axis=1) for pair in zip(*qkv, strict=True))
        q, k = (rotated(t, np.array(where), p["axes_dim"], p["theta"]) for t in (q, k))
        parts = np.split(attend(q, k, v), [n_txt])
        for (part, x), y in zip(list(streams.items()), parts, strict=True):
            name, (_, _, gate, shift, scale, mlp_gate) = f"double_blocks.{i}.{part}", mods[part]
            z = x + m.linear(f"{name}_attn.proj", y) * gate
            hidden = gelu(m.linear(f"{name}_mlp.0", modulated(z, shift, scale)))
            streams[part] = z + m.linear(f"{name}_mlp.2", hidden) * mlp_gate
    return {f"{part}_out": x for part, x in streams.items()}


@pytest.mark.parametrize("n_tokens", [2, 6, 33])
@pytest.mark.parametrize("flash", [False, True], ids=["", "flash"])
@pytest.mark.parametrize("name", ["mmdit-tiny", "mmdit-x-tiny"])
def test_sd3(name: str, n_tokens: int, flash: bool) -> None:
    model, found = run(name, n_tokens=n_tokens, flash_attn=flash)
    assert_like(found["latent"], sd3(model))


@pytest.mark.parametrize(("n_tokens", "across"), [(2, 1), (6, 2), (25, 5)])
@pytest.mark.parametrize("flash", [False, True], ids=["", "flash"])
def test_flux(n_tokens: int, across: int, flash: bool) -> None:
    model, found = run("flux-double-tiny", n_tokens=n_tokens, flash_attn=flash)
    for name, expected in flux(model, across).items():
        assert_like(found[name], expected)


# --- codebooks -----------------------------------------------------------------------------------


def parler(m: Model, n_past: int) -> Array:
    p, n = m.parameters, len(m.feeds["positions"])
    heads, width = p["num_attention_heads"], p["hidden_size"]
    tokens = m.feeds["audio_tokens"].reshape(p["num_codebooks"], n)
    x = m["decoder.positional_embed"][n_past : n_past + n]
    x = x + sum(m[f"decoder.embed_tokens.{i}.weight"][ids] for i, ids in enumerate(tokens))
    for i in range(p["num_hidden_layers"]):
        name = f"decoder.layers.{i}"
        y = m.layer_norm(f"{name}.self_attn_layer_norm", x)
        q, k, v = (m.linear(f"{name}.self_attn.{part}_proj", y) for part in "qkv")
        k = np.concatenate([m[f"cache_k_l{i}"][:n_past], k])
        v = np.concatenate([m[f"cache_v_l{i}"][:, :n_past].T, v])
        y = attend(*(heads_of(t, heads) for t in (q, k, v)), causal(n_past, n))
        x = x + m.linear(f"{name}.self_attn.out_proj", y)
        y = m.layer_norm(f"{name}.encoder_attn_layer_norm", x)
        q = heads_of(m.linear(f"{name}.encoder_attn.q_proj", y), heads)
        y = attend(q, m[f"cross_key_{i}"], m[f"cross_value_{i}"].swapaxes(1, 2))
        x = x + m.linear(f"{name}.encoder_attn.out_proj", y)
        y = m.linear(f"{name}.fc1", m.layer_norm(f"{name}.final_layer_norm", x))
        x = x + m.linear(f"{name}.fc2", gelu(y))
    x = m.layer_norm("decoder.layer_norm", x)
    assert x.shape == (n, width)
    return np.stack([m.linear(f"decoder.lm_heads.{i}", x) for i in range(p["num_codebooks"])])


@pytest.mark.parametrize(("n_past", "n_tokens"), [(0, 4), (7, 1), (9, 3)])
def test_parler(n_past: int, n_tokens: int) -> None:
    model, found = run("codebooks-tiny", n_past=n_past, n_tokens=n_tokens)
    expected = parler(model, n_past)
    assert_like(found["logits"].reshape(expected.shape), expected)
