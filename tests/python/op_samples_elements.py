"""Samples of operations that work element by element, row by row, or only move data."""

from __future__ import annotations

from op_sketch import Sketch, add, sample

import ggml_concurrent as ggc
from ggml_concurrent._ops import ENUMS

FLOATS = ("f32", "f16", "bf16")
LAYOUTS = ("whole", "inside", "rows", "strided", "permuted")


#
# One source
#


def _unary(s: Sketch, variant: str, op: str) -> ggc.Tensor:
    if op == "xielu":
        return s.g.xielu(s.laid(variant.replace("strided", "rows"), 67, 9, 3), 0.8, 0.8, 0.5, 1e-6)
    return s.g.unary(s.laid(variant, 67, 9, 3), op)


def _unary_of(s: Sketch, dtype: str, op: str) -> ggc.Tensor:
    return s.g.unary(s.strided(67, 9, 3, dtype=dtype), op)


def _unary_inplace(s: Sketch, op: str) -> ggc.Tensor:
    return s.g.unary_inplace(s.strided(67, 9, 3), op)


for _op in ENUMS["ggml_unary_op"]:
    _name = f"UNARY:{_op.upper()}"
    add(_name, "f32", lambda s, op=_op: _unary(s, "whole", op))
    add(_name, "f32-strided", lambda s, op=_op: _unary(s, "strided", op))
    if _op != "xielu":
        add(_name, "f16-strided", lambda s, op=_op: _unary_of(s, "f16", op))
        add(_name, "inplace-strided", lambda s, op=_op: _unary_inplace(s, op))

for _op in ("gelu", "relu"):
    add(f"UNARY:{_op.upper()}", "bf16-strided", lambda s, op=_op: _unary_of(s, "bf16", op))


for _op in ("sqr", "sqrt", "log", "sin", "cos"):
    for _type in FLOATS:
        add(
            _op.upper(),
            _type,
            lambda s, op=_op, t=_type: getattr(s.g, op)(s.f(67, 9, 3, dtype=t, positive=True)),
        )
    add(_op.upper(), "strided", lambda s, op=_op: getattr(s.g, op)(s.strided(67, 9, positive=True)))
    add(
        _op.upper(),
        "inplace-strided",
        lambda s, op=_op: getattr(s.g, op + "_inplace")(s.strided(67, 9, 3, positive=True)),
    )


@sample("SUM", "f32", "f16", "bf16")
def _sum(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.sum(s.f(67, 9, 3, dtype=variant))


@sample("SUM", "strided")
def _sum_strided(s: Sketch) -> ggc.Tensor:
    return s.g.sum(s.strided(67, 9, 3))


@sample("SUM_ROWS", *LAYOUTS)
def _sum_rows(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.sum_rows(s.laid(variant, 67, 9, 3))


@sample("CUMSUM", *LAYOUTS)
def _cumsum(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.cumsum(s.laid(variant, 67, 9, 3))


@sample("MEAN", *LAYOUTS)
def _mean(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.mean(s.laid(variant, 67, 9, 3))


@sample("ARGMAX", "whole", "strided", "inside")
def _argmax(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.argmax(s.laid(variant, 67, 19))


@sample("LEAKY_RELU", "whole", "strided", "inside", "inplace")
def _leaky_relu(s: Sketch, variant: str) -> ggc.Tensor:
    inplace = variant == "inplace"
    a = s.strided(67, 9) if inplace else s.laid(variant, 67, 9)
    return s.g.leaky_relu(a, 0.1, inplace)


@sample("LEAKY_RELU", "f16")
def _leaky_relu_f16(s: Sketch) -> ggc.Tensor:
    return s.g.leaky_relu(s.strided(67, 9, dtype="f16"), 0.1, False)


@sample("SCALE", "whole", "inside")
def _scale(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.scale_bias(s.laid(variant, 67, 9, 3), 0.5, 0.25)


@sample("SCALE", "bf16", "inplace")
def _scale_other(s: Sketch, variant: str) -> ggc.Tensor:
    if variant == "bf16":
        return s.g.scale(s.f(67, 9, dtype="bf16"), 0.5)
    return s.g.scale_inplace(s.inside(67, 9), 0.5)


@sample("CLAMP", "whole", "inside", "rows")
def _clamp(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.clamp(s.laid(variant, 67, 9, 3), -0.5, 0.5)


@sample("CLAMP", "f16", "inplace")
def _clamp_other(s: Sketch, variant: str) -> ggc.Tensor:
    if variant == "f16":
        return s.g.clamp(s.strided(67, 9, dtype="f16"), -0.5, 0.5)
    return s.g.clamp_inplace(s.strided(67, 9), -0.5, 0.5)


@sample("FILL", "f32", "f16")
def _fill(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.fill(s.f(67, 9, dtype=variant), 0.5)


@sample("FILL", "inplace")
def _fill_inplace(s: Sketch) -> ggc.Tensor:
    return s.g.fill_inplace(s.inside(67, 9), 0.5)


@sample("TRI", "lower", "upper_diag")
def _tri(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.tri(s.inside(33, 33, 3), variant)


@sample("DIAG", "whole", "inside", "strided")
def _diag(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.diag(s.laid(variant, 33, 1, 3))


@sample("DIAG_MASK_INF", "whole", "inplace")
def _diag_mask_inf(s: Sketch, variant: str) -> ggc.Tensor:
    a = s.inside(33, 9, 3)
    return s.g.diag_mask_inf(a, 5) if variant == "whole" else s.g.diag_mask_inf_inplace(a, 5)


@sample("DIAG_MASK_ZERO", "whole", "inplace")
def _diag_mask_zero(s: Sketch, variant: str) -> ggc.Tensor:
    a = s.inside(33, 9, 3)
    return s.g.diag_mask_zero(a, 5) if variant == "whole" else s.g.diag_mask_zero_inplace(a, 5)


@sample("ARGSORT", "asc", "desc")
def _argsort(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.argsort(s.inside(67, 9, 3), variant)


@sample("ARGSORT", "rows")
def _argsort_rows(s: Sketch) -> ggc.Tensor:
    return s.g.argsort(s.rows(67, 9, 3), "asc")


@sample("TOP_K", "whole", "rows")
def _top_k(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.top_k(s.laid(variant, 67, 9, 3), 5)


@sample("ROLL", *LAYOUTS)
def _roll(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.roll(s.laid(variant, 67, 9, 3), 5, -2, 1, 0)


@sample("PAD", "zero", "circular", "strided")
def _pad(s: Sketch, variant: str) -> ggc.Tensor:
    a = s.strided(17, 9, 3) if variant == "strided" else s.f(17, 9, 3)
    build = s.g.pad_ext_circular if variant == "circular" else s.g.pad_ext
    return build(a, 1, 2, 2, 1, 1, 0, 0, 1)


@sample("PAD_REFLECT_1D", "whole", "inside")
def _pad_reflect(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.pad_reflect_1d(s.laid(variant, 17, 9, 3), 3, 5)


@sample("ARANGE", "f32")
def _arange(s: Sketch) -> ggc.Tensor:
    return s.g.arange(0.5, 66.5, 0.5)


@sample("TIMESTEP_EMBEDDING", "even", "odd")
def _timestep_embedding(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.timestep_embedding(s.f(9, positive=True), 34 if variant == "even" else 33, 10000)


#
# Two sources
#


def _pair(s: Sketch, op: str, variant: str) -> tuple[ggc.Tensor, ggc.Tensor]:
    types = {"f16-f32": ("f16", "f32"), "bf16-f32": ("bf16", "f32")}
    a, b = types.get(variant, (variant, variant))
    return s.strided(67, 9, 3, dtype=a), s.inside(67, 9, 3, dtype=b)


for _op in ("add", "sub", "mul", "div"):
    _name = _op.upper()
    for _types in ("f32", "f16", "bf16", "f16-f32", "bf16-f32"):
        add(_name, _types, lambda s, op=_op, t=_types: getattr(s.g, op)(*_pair(s, op, t)))
    add(
        _name,
        "broadcast",
        lambda s, op=_op: getattr(s.g, op)(s.permuted(67, 9, 3), s.strided(67, 1, 3)),
    )
    add(_name, "repeated", lambda s, op=_op: getattr(s.g, op)(s.f(66, 9), s.strided(33, 3)))
    add(_name, "scalar", lambda s, op=_op: getattr(s.g, op)(s.f(67, 9), s.f(1)))
    add(_name, "column", lambda s, op=_op: getattr(s.g, op)(s.f(67, 9), s.transposed(67, 9)))
    add(
        _name,
        "inplace",
        lambda s, op=_op: getattr(s.g, op + "_inplace")(s.strided(67, 9, 3), s.inside(67, 9)),
    )


def _twice(s: Sketch) -> ggc.Tensor:
    a = s.strided(67, 9)
    return s.g.add(a, a)


add("ADD", "with-itself", _twice)


@sample("ADD", "q4_0", "q8_0", "q4_K", "q6_K")
def _add_quantized(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.add(s.f(256, 9, dtype=variant), s.f(256, 9))


@sample("ADD", "cast-q8_0", "cast-f16")
def _add_cast(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.add_cast(s.f(256, 9, dtype=variant[5:]), s.f(256, 9), "f32")


@sample("ADD1", "f32", "f16", "bf16", "q8_0")
def _add1(s: Sketch, variant: str) -> ggc.Tensor:
    a = s.f(64, 9, dtype=variant)
    return s.by_hand(a, "ADD1", [a, s.f(1)])


@sample("ADD_ID", "whole", "strided")
def _add_id(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.add_id(s.laid(variant, 67, 3, 9), s.laid(variant, 67, 8), s.ints(3, 9, limit=8))


@sample("ACC", "copy", "inplace")
def _acc(s: Sketch, variant: str) -> ggc.Tensor:
    a, b = s.inside(33, 9, 3), s.strided(17, 5, 2)
    build = s.g.acc if variant == "copy" else s.g.acc_inplace
    return build(a, b, a.nb[1], a.nb[2], a.nb[3], a.nb[1] + 8)


@sample("SET", "f32", "i32", "inplace", "1d-inplace")
def _set(s: Sketch, variant: str) -> ggc.Tensor:
    if variant == "i32":
        a, b = s.ints(33, 9, 3, limit=99), s.ints(17, 5, 2, limit=99)
    else:
        a, b = s.inside(33, 9, 3), s.strided(17, 5, 2)
    if variant == "1d-inplace":
        return s.g.set_1d_inplace(a, s.f(17), 40)
    build = s.g.set_inplace if variant == "inplace" else s.g.set
    return build(a, b, a.nb[1], a.nb[2], a.nb[3], a.nb[1] + 8)


@sample("COUNT_EQUAL", "whole")
def _count_equal(s: Sketch) -> ggc.Tensor:
    return s.g.count_equal(s.ints(67, 9, limit=3), s.ints(67, 9, limit=3))


@sample("CONCAT", "dim0", "dim1", "dim2", "f16", "i8", "strided", "permuted")
def _concat(s: Sketch, variant: str) -> ggc.Tensor:
    if variant == "i8":
        return s.g.concat(
            s.ints(17, 9, limit=99, dtype="i8"), s.ints(17, 5, limit=99, dtype="i8"), 1
        )
    layout = variant if variant in LAYOUTS else "whole"
    dtype = "f16" if variant == "f16" else "f32"
    dim = int(variant[3]) if variant.startswith("dim") else 2
    ne = [17, 9, 3]
    a = s.laid(layout, *ne, dtype=dtype)
    ne[dim] += 2
    return s.g.concat(a, s.laid(layout, *ne, dtype=dtype), dim)


@sample("REPEAT", "f32", "f16", "strided", "permuted")
def _repeat(s: Sketch, variant: str) -> ggc.Tensor:
    layout = variant if variant in LAYOUTS else "whole"
    a = s.laid(layout, 17, 3, 2, dtype="f16" if variant == "f16" else "f32")
    return s.g.repeat_4d(a, 34, 9, 2, 2)


@sample("REPEAT_BACK", "whole", "strided")
def _repeat_back(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.repeat_back(s.laid(variant, 34, 9, 4), s.f(17, 3, 2))


for _op in ENUMS["ggml_glu_op"]:
    _name = f"GLU:{_op.upper()}"
    if _op not in ("swiglu_oai", "swiglu_clamp"):
        add(_name, "f32", lambda s, op=_op: s.g.glu(s.rows(66, 9, 3), op, False))
        add(_name, "swapped", lambda s, op=_op: s.g.glu(s.inside(66, 9, 3), op, True))
        add(
            _name,
            "split",
            lambda s, op=_op: s.g.glu_split(s.rows(67, 9, 3), s.inside(67, 9, 3), op),
        )
        for _type in ("f16", "bf16"):
            add(
                _name,
                f"{_type}-split",
                lambda s, op=_op, t=_type: s.g.glu_split(
                    s.rows(67, 9, dtype=t), s.f(67, 9, dtype=t), op
                ),
            )


@sample("GLU:SWIGLU_OAI", "split")
def _swiglu_oai(s: Sketch) -> ggc.Tensor:
    return s.g.swiglu_oai(s.rows(67, 9, 3), s.inside(67, 9, 3), 1.7, 0.7)


@sample("GLU:SWIGLU_CLAMP", "f32", "f16")
def _swiglu_clamp(s: Sketch, variant: str) -> ggc.Tensor:
    pair = s.rows(67, 9, 3, dtype=variant), s.inside(67, 9, 3, dtype=variant)
    return s.g.swiglu_clamp(*pair, 0.7)


@sample("SILU_BACK", "f32", "f16", "strided")
def _silu_back(s: Sketch, variant: str) -> ggc.Tensor:
    layout, dtype = ("strided", "f32") if variant == "strided" else ("whole", variant)
    return s.g.silu_back(s.laid(layout, 67, 9, dtype=dtype), s.laid(layout, 67, 9, dtype=dtype))


#
# Moving data
#


@sample("DUP", *LAYOUTS, "transposed", "f16", "q4_0")
def _dup(s: Sketch, variant: str) -> ggc.Tensor:
    if variant in ("f16", "q4_0"):
        return s.g.dup(s.strided(64, 9, 3, dtype=variant))
    return s.g.dup(s.laid(variant, 67, 9, 3))


@sample("DUP", "inplace")
def _dup_inplace(s: Sketch) -> ggc.Tensor:
    return s.g.dup_inplace(s.strided(67, 9))


@sample("CONT", *LAYOUTS, "transposed", "bf16", "q8_0")
def _cont(s: Sketch, variant: str) -> ggc.Tensor:
    if variant in ("bf16", "q8_0"):
        return s.g.cont(s.permuted(64, 9, 3, dtype=variant))
    return s.g.cont(s.laid(variant, 67, 9, 3))


for _from, _to in [
    ("f32", "f32"),
    ("f32", "f16"),
    ("f32", "bf16"),
    ("f32", "i32"),
    ("f16", "f32"),
    ("f16", "bf16"),
    ("bf16", "f16"),
    ("bf16", "f32"),
    ("f32", "q4_0"),
    ("f32", "q8_0"),
    ("f32", "q6_K"),
    ("f16", "q4_0"),
    ("q4_0", "f32"),
    ("q4_K", "f32"),
    ("q4_0", "q4_0"),
]:
    add(
        "CPY",
        f"{_from}-{_to}",
        lambda s, a=_from, b=_to: s.g.cpy(
            s.f(256, 9, 3, dtype=a),
            s.ints(256, 9, 3, limit=9) if b == "i32" else s.f(256, 9, 3, dtype=b),
        ),
    )


@sample("CPY", "i32-f32", "into-cache", "into-columns", "transposed", "reshaped", "f16-into-gaps")
def _cpy(s: Sketch, variant: str) -> ggc.Tensor:
    if variant == "i32-f32":
        return s.g.cpy(s.ints(64, 9, limit=99), s.strided(64, 9))
    if variant == "into-cache":  # consecutive rows of a cache
        return s.g.cpy(s.strided(64, 5), s.inside(64, 5, dtype="f16"))
    if variant == "into-columns":  # the transposed cache of values
        return s.g.cpy(s.transposed(5, 64), s.strided(5, 64, dtype="f16"))
    if variant == "transposed":
        return s.g.cpy(s.f(17, 9), s.transposed(17, 9))
    if variant == "reshaped":
        return s.g.cpy(s.permuted(16, 9, 4), s.strided(24, 24))
    return s.g.cpy(s.permuted(64, 9, 3), s.strided(64, 9, 3, dtype="f16"))


#
# Nothing to compute
#


@sample("RESHAPE", "whole")
def _reshape(s: Sketch) -> ggc.Tensor:
    return s.g.reshape_2d(s.f(8, 9), 12, 6)


@sample("VIEW", "strided")
def _view(s: Sketch) -> ggc.Tensor:
    return s.strided(8, 9)


@sample("PERMUTE", "whole")
def _permute(s: Sketch) -> ggc.Tensor:
    return s.permuted(8, 9, 3)


@sample("TRANSPOSE", "whole")
def _transpose(s: Sketch) -> ggc.Tensor:
    return s.g.transpose(s.f(8, 9))
