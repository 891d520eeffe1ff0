"""Diffusion transformers with an image and a text stream: Stable Diffusion 3, Flux.

In every block the two streams have weights of their own and meet in one attention over the tokens
of both.  The order of operations is stable-diffusion.cpp's, with its names of tensors, for one
image at a time.  A graph's n_tokens are the image's: patches of 2 x 2 latent pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import GraphError
from ..tensor import Tensor
from .builder import Builder
from .workload import Entry

EPS = 1e-6

_QKV = tuple[Tensor, Tensor, Tensor]


def sd3(b: Builder, parameters: Mapping[str, Any]) -> None:
    """MMDiT of Stable Diffusion 3 and 3.5: joint blocks, then the projection to latent pixels.

    Inputs: `x` and `context`, image and text after their embedding; `c`, the embedding of time
    step and text that modulates the norms.  Left out: these embeddings, and putting the result's
    patches into order.  The last block does not compute the text any further.  In the blocks up to
    d_self the image attends to itself once more, beside the joint attention.
    """
    p = parameters
    x, context, c = _inputs(b, p, "x", "context", "c")
    for i in range(p["depth"]):
        context, x = _joint_block(b, p, i, context, x, c)
    b.output(_final_layer(b, p, x, c), "latent")


def flux_double(b: Builder, parameters: Mapping[str, Any]) -> None:
    """The double-stream blocks of Flux.

    Inputs: `img`, `txt` and `vec` after their embedding; `pe`, the rotations of the positions.
    Left out: these embeddings, the single-stream blocks and the projection after them.
    """
    p = parameters
    img, txt, vec = _inputs(b, p, "img", "txt", "vec")
    pe = b.input("pe", "f32", rotations(b.n_tokens, p["n_txt_tokens"], p["axes_dim"], p["theta"]))
    for i in range(p["depth"]):
        img, txt = _double_block(b, p, f"double_blocks.{i}", img, txt, vec, pe)
    b.output(txt, "txt_out")
    b.output(img, "img_out")


def rotations(
    n_img_tokens: int, n_txt_tokens: int, axes_dim: Sequence[int], theta: float
) -> np.ndarray:
    """Rotation matrices of all tokens, text first: shape (tokens, sum(axes_dim) / 2, 2, 2).

    Text stands at position 0 of all axes, the image's patches at their row on the second axis and
    at their column on the third; the image is as square as its number of patches allows.
    """
    across = math.isqrt(n_img_tokens)
    places = np.zeros((n_txt_tokens + n_img_tokens, len(axes_dim)))
    places[n_txt_tokens:, 1], places[n_txt_tokens:, 2] = np.divmod(np.arange(n_img_tokens), across)
    frequencies = [theta ** (-np.arange(0, dim, 2) / dim) for dim in axes_dim]
    angles = np.concatenate(
        [places[:, i, None] * f for i, f in enumerate(frequencies)], axis=1, dtype=np.float32
    )
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([cos, -sin, sin, cos], axis=-1).reshape(*angles.shape, 2, 2)


def _inputs(b: Builder, p: Mapping[str, Any], *names: str) -> tuple[Tensor, Tensor, Tensor]:
    """Image and text, ne (width, tokens), and the vector that modulates, ne (width)."""
    if b.n_past:
        raise GraphError(f"a diffusion model has no cache: n_past is {b.n_past}, expected 0")
    width, (image, text, vector) = p["hidden_size"], names
    return (
        b.activations(image, width, b.n_tokens),
        b.activations(text, width, p["n_txt_tokens"]),
        b.activations(vector, width),
    )


#
# Stable Diffusion 3
#


class _Half(NamedTuple):
    """One stream in a joint block, before the attention.

    qkv: each ne (width, tokens).  modulation: gate of the attention; shift, scale and gate of the
    MLP.  own: the same as qkv and the gate for a further attention of the stream to itself.
    """

    qkv: _QKV
    modulation: list[Tensor]
    own: tuple[_QKV, Tensor] | None = None


def _joint_block(
    b: Builder, p: Mapping[str, Any], i: int, context: Tensor, x: Tensor, c: Tensor
) -> tuple[Tensor, Tensor]:
    """Text and image after one block."""
    pre_only, self_attn = i == p["depth"] - 1, i <= p["d_self"]
    names = [f"joint_blocks.{i}.{stream}_block" for stream in ("context", "x")]
    text = _before_attention(b, p, names[0], context, c, 2 if pre_only else 6)
    image = _before_attention(b, p, names[1], x, c, 9 if self_attn else 6)
    q, k, v = (b.g.concat(t, i, 1) for t, i in zip(text.qkv, image.qkv, strict=True))
    mixed = _attention_of(b, p, (q, k, v))
    n_txt, n_img = context.ne[1], x.ne[1]
    if not pre_only:
        context = _after_attention(b, p, names[0], context, _tokens(b, mixed, 0, n_txt), text)
    return context, _after_attention(b, p, names[1], x, _tokens(b, mixed, n_txt, n_img), image)


def _before_attention(
    b: Builder, p: Mapping[str, Any], name: str, x: Tensor, c: Tensor, n_mods: int
) -> _Half:
    """The vectors that modulate, and queries, keys and values of the modulated norm of x."""
    m = _linear(b, f"{name}.adaLN_modulation.1", b.g.silu(c), n_mods * x.ne[0])
    shift, scale, *others = _chunks(b, m, n_mods)
    y = b.g.norm(x, EPS)
    qkv = _qkv(b, p, f"{name}.attn", _modulate(b, y, shift, scale))
    if n_mods < 9:
        return _Half(qkv, others)
    *others, shift, scale, gate = others
    own = _qkv(b, p, f"{name}.attn2", _modulate(b, y, shift, scale))
    return _Half(qkv, others, (own, gate))


def _after_attention(
    b: Builder, p: Mapping[str, Any], name: str, x: Tensor, y: Tensor, half: _Half
) -> Tensor:
    """Adds to x the projection of y, what the attention gave, and then the MLP, both gated."""
    g, width = b.g, x.ne[0]
    gate, shift, scale, mlp_gate = half.modulation
    y = _linear(b, f"{name}.attn.proj", y, width)
    x = g.add(x, g.mul(y, _column(b, gate)))
    if half.own is not None:
        qkv, gate = half.own
        y = _linear(b, f"{name}.attn2.proj", _attention_of(b, p, qkv), width)
        x = g.add(x, g.mul(y, _column(b, gate)))
    y = _modulate(b, g.norm(x, EPS), shift, scale)
    y = _mlp(b, p, f"{name}.mlp.fc1", f"{name}.mlp.fc2", y)
    return g.add(x, g.mul(y, _column(b, mlp_gate)))


def _qkv(b: Builder, p: Mapping[str, Any], name: str, x: Tensor) -> _QKV:
    """Queries and keys, with a norm per head where the model has one, and values."""
    g, (width, n) = b.g, x.ne[:2]
    q, k, v = _split_qkv(b, _linear(b, f"{name}.qkv", x, 3 * width))
    q, k = _split_heads(b, p, q), _split_heads(b, p, k)
    if p["qk_norm"] == "rms":
        q = g.mul_inplace(g.rms_norm(q, EPS), b.norm(f"{name}.ln_q.weight", q.ne[0]))
        k = g.mul_inplace(g.rms_norm(k, EPS), b.norm(f"{name}.ln_k.weight", k.ne[0]))
    return g.reshape_3d(q, width, n, 1), g.reshape_3d(k, width, n, 1), v


def _attention_of(b: Builder, p: Mapping[str, Any], qkv: _QKV) -> Tensor:
    """Attention with queries, keys and values that are each ne (width, tokens)."""
    q, k, v = (_split_heads(b, p, t) for t in qkv)
    return _attention(b, _heads_outside(b, q), _heads_outside(b, k), v)


def _final_layer(b: Builder, p: Mapping[str, Any], x: Tensor, c: Tensor) -> Tensor:
    """Latent pixels of each patch, ne (patch_size * patch_size * out_channels, tokens)."""
    g, name, width = b.g, "final_layer", p["hidden_size"]
    m = _linear(b, f"{name}.adaLN_modulation.1", g.silu(c), 2 * width)
    y = _modulate(b, g.norm(x, EPS), *_chunks(b, m, 2))
    n_out = p["patch_size"] ** 2 * p["out_channels"]
    weight = b.vector(f"{name}.linear.weight", width, n_out, scale=width**-0.5)  # f32 in any file
    return g.add_inplace(g.mul_mat(weight, y), b.vector(f"{name}.linear.bias", n_out))


def _chunks(b: Builder, m: Tensor, n: int) -> list[Tensor]:
    """Copies of n equal parts of a vector."""
    g, width = b.g, m.ne[0] // n
    _, nb1, nb2, nb3 = m.nb
    step = width * m.nb[0]
    return [
        g.cont(g.view_4d(m, width, 1, 1, 1, nb1=nb1, nb2=nb2, nb3=nb3, offset=i * step))
        for i in range(n)
    ]


def _split_qkv(b: Builder, qkv: Tensor) -> _QKV:
    """Queries, keys and values, each ne (width, tokens), of ne (3 * width, tokens)."""
    g, (width, n) = b.g, (qkv.ne[0] // 3, qkv.ne[1])
    apart = g.cont(g.permute(g.reshape_4d(qkv, width, 3, n, 1), 0, 3, 1, 2))
    nb1, nb2, nb3 = apart.nb[1:]
    q, k, v = (g.view_3d(apart, width, n, 1, nb1=nb1, nb2=nb2, offset=i * nb3) for i in range(3))
    return q, k, v


#
# Flux
#


class _Modulation(NamedTuple):
    """Vectors of ne (width) that modulate a norm, and the gate of what is computed from it."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


def _double_block(
    b: Builder, p: Mapping[str, Any], name: str, img: Tensor, txt: Tensor, vec: Tensor, pe: Tensor
) -> tuple[Tensor, Tensor]:
    """Image and text after one block."""
    img_mods, txt_mods = (_modulations(b, f"{name}.{s}_mod.lin", vec) for s in ("img", "txt"))
    img_qkv = _stream_qkv(b, p, f"{name}.img_attn", img, img_mods[0])
    txt_qkv = _stream_qkv(b, p, f"{name}.txt_attn", txt, txt_mods[0])
    q, k, v = (b.g.concat(t, i, 2) for t, i in zip(txt_qkv, img_qkv, strict=True))
    mixed = _attention(b, _rotate(b, q, pe), _rotate(b, k, pe), v)
    n_txt, n_img = txt.ne[1], img.ne[1]
    img = _stream_end(b, p, f"{name}.img", img, _tokens(b, mixed, n_txt, n_img), img_mods)
    return img, _stream_end(b, p, f"{name}.txt", txt, _tokens(b, mixed, 0, n_txt), txt_mods)


def _modulations(b: Builder, name: str, vec: Tensor) -> tuple[_Modulation, _Modulation]:
    """For the attention and for the MLP."""
    g, width = b.g, vec.ne[0]
    m = g.reshape_3d(_linear(b, name, g.silu(vec), 6 * width), width, 6, 1)
    m = g.cont(g.permute(m, 0, 2, 1, 3))
    nb1, step = m.nb[1:3]
    parts = [g.view_2d(m, width, 1, nb1=nb1, offset=i * step) for i in range(6)]
    return _Modulation(*parts[:3]), _Modulation(*parts[3:])


def _stream_qkv(b: Builder, p: Mapping[str, Any], name: str, x: Tensor, mod: _Modulation) -> _QKV:
    """Queries and keys with a norm per head, and values: ne (head length, heads, tokens)."""
    g, (width, n), heads = b.g, x.ne[:2], p["num_heads"]
    y = _modulate(b, g.norm(x, EPS), mod.shift, mod.scale)
    qkv = _linear(b, f"{name}.qkv", y, 3 * width)
    length, (item, nb2, nb3, _) = width // heads, qkv.nb
    nb1 = item * length
    q, k, v = (
        g.view_4d(qkv, length, heads, n, 1, nb1=nb1, nb2=nb2, nb3=nb3, offset=i * width * item)
        for i in range(3)
    )
    q = g.mul(g.rms_norm(q, EPS), b.norm(f"{name}.norm.query_norm.scale", length))
    k = g.mul(g.rms_norm(k, EPS), b.norm(f"{name}.norm.key_norm.scale", length))
    return q, k, v


def _stream_end(
    b: Builder,
    p: Mapping[str, Any],
    name: str,
    x: Tensor,
    y: Tensor,
    mods: tuple[_Modulation, _Modulation],
) -> Tensor:
    """Adds to x the projection of y, what the attention gave, and then the MLP, both gated."""
    g, (attn, mlp) = b.g, mods
    x = g.add(x, g.mul(_linear(b, f"{name}_attn.proj", y, x.ne[0]), attn.gate))
    y = _modulate(b, g.norm(x, EPS), mlp.shift, mlp.scale)
    return g.add(x, g.mul(_mlp(b, p, f"{name}_mlp.0", f"{name}_mlp.2", y), mlp.gate))


def _rotate(b: Builder, x: Tensor, pe: Tensor) -> Tensor:
    """x, ne (length, heads, tokens), with neighbours rotated: ne (length, tokens, heads)."""
    g, (length, heads, n, _) = b.g, x.ne
    pairs = g.reshape_4d(g.cont(g.permute(x, 0, 2, 1, 3)), 2, length // 2, n, heads)
    firsts, seconds = _parts(b, g.cont(g.permute(pairs, 3, 0, 1, 2)))
    firsts, seconds = (
        g.repeat_4d(g.reshape_4d(t, 1, length // 2, n, heads), 2, length // 2, n, heads)
        for t in (firsts, seconds)
    )
    columns = _parts(b, g.cont(g.permute(pe, 3, 0, 1, 2)))
    turned = g.add_inplace(g.mul(firsts, columns[0]), g.mul(seconds, columns[1]))
    return g.reshape_3d(turned, length, n, heads)


def _parts(b: Builder, x: Tensor) -> tuple[Tensor, Tensor]:
    """The two parts of the last dimension."""
    ne, (_, nb1, nb2, nb3) = x.ne[:3], x.nb
    first, second = (b.g.view_3d(x, *ne, nb1=nb1, nb2=nb2, offset=i * nb3) for i in range(2))
    return first, second


#
# Both
#


def _attention(b: Builder, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of all tokens to all: ne (width, tokens).

    q, k: ne (length, tokens, heads).  v: ne (length, heads, tokens).
    """
    g, (length, n, heads, _) = b.g, q.ne
    scale = length**-0.5
    if b.flash_attn:
        k = g.cast(k, "f16")
        v = g.cast(g.reshape_3d(g.cont(g.permute(v, 0, 2, 1, 3)), length, n, heads), "f16")
        y = g.flash_attn_ext(q, k, v, None, scale, 0.0, 0.0)
        g.prec_set_acc(y, "f32")
        nb1, nb2 = y.nb[1:3]
        y = g.view_4d(y, length, heads, n, 1, nb1=nb1, nb2=nb2, nb3=nb1 * heads, offset=0)
    else:
        v = g.reshape_3d(g.cont(g.permute(v, 1, 2, 0, 3)), n, length, heads)
        scores = g.mul_mat(k, q)
        g.prec_set_acc(scores, "f32")
        weights = g.soft_max_inplace(g.scale_inplace(scores, scale))
        y = g.reshape_4d(g.mul_mat(v, weights), length, n, heads, 1)
        y = g.cont(g.permute(y, 0, 2, 1, 3))
    return g.reshape_3d(y, length * heads, n, 1)


def _split_heads(b: Builder, p: Mapping[str, Any], x: Tensor) -> Tensor:
    """ne (width, tokens) seen as (length, heads, tokens)."""
    heads = p["num_heads"]
    return b.g.reshape_4d(x, x.ne[0] // heads, heads, x.ne[1], 1)


def _heads_outside(b: Builder, x: Tensor) -> Tensor:
    """ne (length, heads, tokens) copied to (length, tokens, heads)."""
    length, heads, n, _ = x.ne
    return b.g.reshape_3d(b.g.cont(b.g.permute(x, 0, 2, 1, 3)), length, n, heads)


def _tokens(b: Builder, x: Tensor, first: int, n: int) -> Tensor:
    """n tokens of ne (width, tokens) from `first` on."""
    nb1, nb2 = x.nb[1:3]
    return b.g.view_3d(x, x.ne[0], n, 1, nb1=nb1, nb2=nb2, offset=first * nb1)


def _modulate(b: Builder, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x * (1 + scale) + shift."""
    scale, shift = _column(b, scale), _column(b, shift)
    return b.g.add(b.g.add(x, b.g.mul(x, scale)), shift)


def _column(b: Builder, m: Tensor) -> Tensor:
    """A vector as one token of a batch."""
    return b.g.reshape_3d(m, m.ne[0], 1, m.ne[1])


def _mlp(b: Builder, p: Mapping[str, Any], up: str, down: str, x: Tensor) -> Tensor:
    """Two layers with GELU between them."""
    width = x.ne[0]
    x = b.g.gelu_inplace(_linear(b, up, x, int(width * p["mlp_ratio"])))
    return _linear(b, down, x, width)


def _linear(b: Builder, name: str, x: Tensor, n_out: int) -> Tensor:
    """weight @ x + bias."""
    y = b.g.mul_mat(b.matrix(f"{name}.weight", x.ne[0], n_out), x)
    return b.g.add_inplace(y, b.vector(f"{name}.bias", n_out))


def _mmdit(depth: int, width: int, heads: int, n_txt: int) -> dict[str, Any]:
    return {
        "depth": depth,
        "hidden_size": width,
        "num_heads": heads,
        "mlp_ratio": 4.0,
        "n_txt_tokens": n_txt,
    }


def _sd3(
    depth: int, width: int, heads: int, n_txt: int, d_self: int = -1, channels: int = 16
) -> dict[str, Any]:
    return {
        **_mmdit(depth, width, heads, n_txt),
        "d_self": d_self,
        "qk_norm": "" if d_self < 0 else "rms",
        "patch_size": 2,
        "out_channels": channels,
    }


_MEDIUM, _MEDIUM_35 = _sd3(24, 1536, 24, 154), _sd3(24, 1536, 24, 154, d_self=12)
_TINY, _TINY_35 = _sd3(2, 64, 4, 3, channels=4), _sd3(2, 64, 4, 3, d_self=0, channels=4)
_FLUX = {**_mmdit(19, 3072, 24, 256), "axes_dim": (16, 56, 56), "theta": 10000}
_FLUX_TINY = {**_mmdit(2, 64, 4, 3), "axes_dim": (4, 6, 6), "theta": 10000}

ENTRIES = [
    Entry("sd3-medium", "SD 3 medium, 512 x 512", sd3, _MEDIUM, n_tokens=1024),
    Entry("sd3.5-medium", "SD 3.5 medium, 512 x 512", sd3, _MEDIUM_35, n_tokens=1024),
    Entry("mmdit-small", "SD 3 blocks, 8 x 512", sd3, _sd3(8, 512, 8, 77), n_tokens=256),
    Entry("mmdit-tiny", "for tests", sd3, _TINY, "f32", 6),
    Entry("mmdit-x-tiny", "for tests", sd3, _TINY_35, "f32", 6),
    Entry("flux-double", "Flux's 19 double blocks", flux_double, _FLUX, "q4_0", n_tokens=1024),
    Entry("flux-double-tiny", "for tests", flux_double, _FLUX_TINY, "f32", 6),
]
