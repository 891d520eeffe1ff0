"""Rules that single operations are checked against before ggml is called.

ggml checks much itself, by assertions that become GraphError.  Here stands what it does not check
although the process would die of it (a division by zero, a view beyond its tensor, a type that its
kernels refuse at run time), and what is met often enough to deserve a better message.

A rule looks at the arguments by name and returns what is wrong with them, or None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Optional

from ._arguments import describe
from ._native import ffi, ggml, lib
from ._ops import SPECS
from .dtypes import BY_ID, BY_NAME, DType
from .errors import GraphError
from .tensor import Tensor

__all__ = ["check_operation", "check_result"]

_Values = dict[str, Any]
_Rule = Callable[[_Values], Optional[str]]
_RULES: dict[str, list[_Rule]] = {op: [] for op in SPECS}


def _rule(*ops: str) -> Callable[[_Rule], _Rule]:
    """Registers a rule for operations and for their in-place forms."""

    def register(rule: _Rule) -> _Rule:
        for op in ops:
            _RULES[op].append(rule)
            if op + "_inplace" in SPECS:
                _RULES[op + "_inplace"].append(rule)
        return rule

    return register


def check_operation(op: str, values: _Values) -> None:
    """Raises GraphError if a rule for this operation is broken."""
    for rule in _RULES[op]:
        problem = rule(values)
        if problem:
            raise GraphError(f"{describe(op, values)}: {problem}")


# Bytes that no machine has: sizes that are multiplied beyond this would wrap in C.
_MAX_BYTES = 1 << 60


def check_result(op: str, values: _Values, result: Any) -> None:
    """Raises GraphError if ggml built a tensor that cannot exist."""
    ne, dtype = tuple(result.ne), BY_ID[result.type]
    if min(ne) < 1:
        raise GraphError(f"{describe(op, values)}: the result would hold nothing: ne {ne}")
    if ne[0] % dtype.block and result.view_src == ffi.NULL:
        raise GraphError(
            f"{describe(op, values)}: rows of {dtype.name} are a multiple of {dtype.block} long, "
            f"the result's would have {ne[0]}"
        )
    if dtype.row_bytes(ne[0]) * ne[1] * ne[2] * ne[3] > _MAX_BYTES:
        raise GraphError(f"{describe(op, values)}: the result is larger than any memory: ne {ne}")


def _ne(t: Tensor) -> tuple[int, int, int, int]:
    return tuple(t._ptr.ne)  # type: ignore[return-value]


def _nb(t: Tensor) -> tuple[int, int, int, int]:
    return tuple(t._ptr.nb)  # type: ignore[return-value]


def _type(t: Tensor) -> DType:
    return BY_ID[t._ptr.type]


#
# Integers that ggml divides by, or takes as they are
#

_POSITIVE = set(
    "s s0 s1 s2 k0 k1 d d0 d1 d2 stride stride0 stride1 dilation0 dilation1 w w0 h0 n_groups "
    "scale_factor IC oc n_channels n_batch n_channels_out K k dim max_period qh kh "
    "ne0 ne1 ne2 ne3".split()
)
_NOT_NEGATIVE = set(
    "p0 p1 p2 p3 pad0 pad1 lp0 lp1 lp2 lp3 rp0 rp1 rp2 rp3 n_past n_ctx_orig".split()
)
# Not what the name says elsewhere: a dimension counts from 0; one-dimensional forms ignore s1, d1.
_FREE = {("concat", "dim"), ("im2col", "s1"), ("im2col", "d1")}
_FREE |= {("im2col_back", "s1"), ("im2col_back", "d1")}


def _limits_of(op: str) -> list[tuple[str, int]]:
    limits = []
    for name, kind in SPECS[op]:
        if kind in ("i32", "i64") and (op, name) not in _FREE:
            if name in _POSITIVE:
                limits.append((name, 1))
            elif name in _NOT_NEGATIVE:
                limits.append((name, 0))
    return limits


def _limit_rule(limits: list[tuple[str, int]]) -> _Rule:
    def rule(values: _Values) -> str | None:
        for name, low in limits:
            if values[name] < low:
                return f"{name} is {values[name]}, it must be at least {low}"
        return None

    return rule


for _op in SPECS:
    if _limits := _limits_of(_op):
        _RULES[_op].append(_limit_rule(_limits))


@_rule("im2col", "im2col_back")
def _two_dimensional(values: _Values) -> str | None:
    if values["is_2D"] and (values["s1"] < 1 or values["d1"] < 1):
        return "s1 and d1 must be at least 1"
    return None


@_rule("im2col_3d", "conv_3d")
def _whole_channels(values: _Values) -> str | None:
    for name in ("a", "b"):
        n = _ne(values[name])[3]
        if n % values["IC"]:
            return f"{name}.ne[3] is {n}, it must be a multiple of IC = {values['IC']}"
    return None


@_rule("im2col_back")
def _positive_ne(values: _Values) -> str | None:
    return None if min(values["ne"]) >= 1 else "ne must be positive"


@_rule("roll")
def _shift_inside(values: _Values) -> str | None:
    for i, n in enumerate(_ne(values["a"])):
        if abs(values[f"shift{i}"]) >= n:
            return f"shift{i} must be less than a.ne[{i}] = {n} either way"
    return None


@_rule("arange")
def _finite_range(values: _Values) -> str | None:
    start, stop, step = values["start"], values["stop"], values["step"]
    if not (all(map(math.isfinite, (start, stop, step))) and start < stop and step > 0):
        return "expected start < stop and step > 0, all finite"
    return None if (stop - start) / step < 2**31 else "too many steps"


#
# Types that ggml's kernels compute with
#
# A kernel that meets another type ends the process, at run time and on a thread of its own.
#

_FLOATS = ("f32", "f16", "bf16")
_QUANTIZED = tuple(t.name for t in BY_ID.values() if t.quantized)
# Intermediate forms of products: nothing multiplies by them.
_WEIGHTS = _FLOATS + tuple(t for t in _QUANTIZED if t not in ("q8_1", "q8_K"))


def _types(parameter: str, allowed: Iterable[str], ops: str) -> None:
    """Registers the types that a parameter of these operations may have."""
    ids = {BY_NAME[name.lower()].id for name in allowed}
    text = " ".join(allowed) if len(ids) < 8 else "a float or quantised type"

    def rule(values: _Values) -> str | None:
        t = values[parameter]
        if t is None or t._ptr.type in ids:
            return None
        return f"{parameter} is {t.dtype}, expected {text}"

    _rule(*ops.split())(rule)


_types(
    "a",
    _FLOATS,
    "abs sgn neg step tanh elu relu sigmoid gelu gelu_erf gelu_quick silu hardswish hardsigmoid "
    "exp expm1 softplus floor ceil round trunc xielu unary sqr sqrt log sin cos sum sub mul div "
    "glu reglu geglu swiglu geglu_erf geglu_quick reglu_swapped geglu_swapped swiglu_swapped "
    "geglu_erf_swapped geglu_quick_swapped glu_split reglu_split geglu_split swiglu_split "
    "geglu_erf_split geglu_quick_split",
)
_types(
    "a",
    ["f32"],
    "norm rms_norm rms_norm_back group_norm l2_norm sum_rows cumsum mean argmax repeat_back diag "
    "diag_mask_inf diag_mask_zero soft_max soft_max_ext soft_max_ext_back pad pad_circular "
    "pad_ext pad_ext_circular roll upscale interpolate argsort argsort_top_k top_k swiglu_oai tri "
    "add_id acc add_rel_pos cross_entropy_loss cross_entropy_loss_back opt_step_adamw opt_step_sgd",
)
_types("a", ["f32", "bf16"], "scale scale_bias")
_types("a", ["f32", "f16"], "clamp fill leaky_relu silu_back swiglu_clamp rope rope_ext rope_multi "
       "rope_ext_back rope_multi_back get_rows_back conv_transpose_1d conv_transpose_2d_p0 "
       "conv_2d_direct conv_3d_direct pool_1d pool_2d pool_2d_back")
_types("a", ["f16", "bf16"], "get_rel_pos")
_types("a", ["i32"], "count_equal")
_types("a", [*_FLOATS, "i16", "i32", "i64"], "repeat repeat_4d")
_types("a", [*_FLOATS, "i8", "i16", "i32"], "concat")
_types("a", ["f32", "i32"], "set set_1d set_2d")
_types("a", _WEIGHTS, "add mul_mat")
_types("a", [t for t in _WEIGHTS if t != "bf16"], "out_prod")
_types("as_", _WEIGHTS, "mul_mat_id")
_types("a", [*_WEIGHTS, "i32"], "get_rows")
_types("a", [*_FLOATS, *_QUANTIZED], "set_rows")
_types("b", ["f32"], "mul_mat_id out_prod rms_norm_back soft_max_ext_back add_id acc swiglu_oai "
       "conv_1d conv_1d_ph conv_1d_dw conv_1d_dw_ph conv_2d conv_2d_sk_p0 conv_2d_s1_ph conv_2d_dw "
       "conv_2d_dw_direct conv_2d_direct conv_3d conv_3d_direct conv_transpose_1d "
       "conv_transpose_2d_p0 im2col_3d cross_entropy_loss cross_entropy_loss_back")
_types("a", _FLOATS, "conv_1d conv_1d_ph conv_1d_dw conv_1d_dw_ph conv_2d conv_2d_sk_p0 "
       "conv_2d_s1_ph conv_3d")
_types("a", ["f16", "bf16"], "conv_2d_dw")
_types("a", ["f32", "f16"], "conv_2d_dw_direct")
_types("q", ["f32"], "flash_attn_ext")
_types("k", _WEIGHTS, "flash_attn_ext")
_types("v", _WEIGHTS, "flash_attn_ext")
_types("timesteps", ["f32"], "timestep_embedding")
_types("sx", ["f32"], "ssm_conv")
_types("c", ["f32"], "ssm_conv")
for _parameter in ("s", "x", "dt", "A", "B", "C"):
    _types(_parameter, ["f32"], "ssm_scan")
for _parameter in ("k", "v", "r", "tf", "td", "state"):
    _types(_parameter, ["f32"], "rwkv_wkv6")
for _parameter in ("r", "w", "k", "v", "a", "b", "state"):
    _types(_parameter, ["f32"], "rwkv_wkv7")
for _parameter in ("k", "v", "q", "g", "state"):
    _types(_parameter, ["f32"], "gated_linear_attn")
for _parameter in ("grad", "m", "v"):
    _types(_parameter, ["f32"], "opt_step_adamw")
_types("grad", ["f32"], "opt_step_sgd")


@_rule("sub", "mul", "div", "add")
def _operand_types(values: _Values) -> str | None:
    a, b = _type(values["a"]), _type(values["b"])
    if b.name == "f32" or (b is a and not a.quantized):
        return None
    return f"b is {b.name}, expected f32 or a's type if that is a float type"


@_rule("set", "set_1d", "set_2d", "silu_back", "swiglu_clamp", "count_equal")
def _same_type(values: _Values) -> str | None:
    a, b = _type(values["a"]), _type(values["b"])
    return None if a is b else f"a is {a.name} and b is {b.name}, they must be the same"


@_rule("im2col", "im2col_3d")
def _column_type(values: _Values) -> str | None:
    return None if BY_ID[values["dst_type"]].name in ("f32", "f16") else "dst_type is f32 or f16"


def _copies(source: DType, target: DType) -> bool:
    """Whether ggml converts one type into the other."""
    if source is target:
        return True
    if source.quantized:
        return target.name == "f32"
    if source.name in _FLOATS:
        return target.name in (*_FLOATS, "i32") or _has_quantizer(target)
    return source.name == "i32" and target.name == "f32"


def _has_quantizer(dtype: DType) -> bool:
    """Whether kernels can write the type: those that need an importance matrix they cannot."""
    unwritable = ("iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq1_s", "iq1_m")
    return dtype.quantized and dtype.name not in unwritable


@_rule("cpy")
def _copy_types(values: _Values) -> str | None:
    a, b = _type(values["a"]), _type(values["b"])
    return None if _copies(a, b) else f"ggml does not convert {a.name} to {b.name}"


@_rule("cast")
def _cast_types(values: _Values) -> str | None:
    a, b = _type(values["a"]), BY_ID[values["type"]]
    return None if _copies(a, b) else f"ggml does not convert {a.name} to {b.name}"


@_rule("set_rows")
def _row_types(values: _Values) -> str | None:
    a = _type(values["a"])
    return None if not a.quantized or _has_quantizer(a) else f"ggml cannot write {a.name}"


#
# Shapes
#


@_rule("add", "sub", "mul", "div")
def _repeats(values: _Values) -> str | None:
    a, b = _ne(values["a"]), _ne(values["b"])
    for i in range(4):
        if a[i] % b[i]:
            return f"b is repeated to a's shape, but a.ne[{i}] = {a[i]} is no multiple of {b[i]}"
    return None


def _sums_over(weight: str, values: _Values) -> str | None:
    a, b = _ne(values[weight]), _ne(values["b"])
    if a[0] != b[0]:
        return (
            f"{weight}.ne[0] is {a[0]} and b.ne[0] is {b[0]}; the product sums over them, they must "
            "be equal"
        )
    if ggml.ggml_is_transposed(values[weight]._ptr):
        return f"{weight} is transposed; make it contiguous with cont() first"
    return None


@_rule("mul_mat")
def _matrix_product(values: _Values) -> str | None:
    if problem := _sums_over("a", values):
        return problem
    a, b = _ne(values["a"]), _ne(values["b"])
    for i in (2, 3):
        if b[i] % a[i]:
            return f"a is repeated along ne[{i}], but b.ne[{i}] = {b[i]} is no multiple of {a[i]}"
    weight, x = _type(values["a"]), _type(values["b"])
    fits = x.name == "f32" or (x is weight and not x.quantized)
    fits = fits or (x.name == "bf16" and weight.name == "f32")
    return None if fits else f"b is {x.name}, expected f32 for a of {weight.name}"


@_rule("mul_mat_id")
def _expert_product(values: _Values) -> str | None:
    return _sums_over("as_", values)


_CONTIGUOUS_ROWS = {
    "mul_mat": "ab",
    "mul_mat_id": ("as_", "b"),
    "out_prod": "a",
    "get_rows": "a",
    "add": "a",
    "sub": "a",
    "mul": "a",
    "div": "a",
    "rms_norm": "a",
    "group_norm": "a",
    "sum_rows": "a",
    "cumsum": "a",
    "repeat": "a",
    "repeat_4d": "a",
    "repeat_back": "a",
    "clamp": "a",
    "rope": "a",
    "rope_ext": "a",
    "rope_multi": "a",
    "rope_ext_back": "a",
    "rope_multi_back": "a",
    "diag": "a",
    "diag_mask_inf": "a",
    "diag_mask_zero": "a",
    "ssm_conv": ("sx", "c"),
    "flash_attn_ext": "qkv",
    "norm": "a",
    "l2_norm": "a",
    "acc": "b",
    "set": "b",
    "set_1d": "b",
    "set_2d": "b",
}


def _row_rule(parameters: Iterable[str]) -> _Rule:
    def rule(values: _Values) -> str | None:
        for name in parameters:
            t = values[name]
            if _nb(t)[0] != _type(t).nbytes:
                return f"the rows of {name} are not contiguous; use cont() first"
        return None

    return rule


for _op, _names in _CONTIGUOUS_ROWS.items():
    _rule(_op)(_row_rule(_names))


@_rule("rope", "rope_ext", "rope_multi", "rope_ext_back", "rope_multi_back")
def _rotation(values: _Values) -> str | None:
    n_dims, width = values["n_dims"], _ne(values["a"])[0]
    whole = values["mode"] == lib.GGML_ROPE_TYPE_VISION
    if n_dims < 2 or n_dims % 2 or n_dims > (width // 2 if whole else width):
        return f"n_dims is {n_dims}, expected an even number from 2 to a.ne[0] = {width}"
    if "sections" in values and not (min(values["sections"]) >= 0 < max(values["sections"])):
        return "expected sections of which none is negative and one is positive"
    return None


@_rule("soft_max_ext", "flash_attn_ext")
def _mask_height(values: _Values) -> str | None:
    mask, rows = values["mask"], values.get("a") or values["q"]
    if mask is None or _ne(mask)[1] >= _ne(rows)[1]:
        return None
    return f"mask.ne[1] is {_ne(mask)[1]}, it must be at least {_ne(rows)[1]}, a row per query"


@_rule("flash_attn_ext")
def _attention(values: _Values) -> str | None:
    q, k, v = _ne(values["q"]), _ne(values["k"]), _ne(values["v"])
    if q[0] != k[0]:
        return f"q.ne[0] is {q[0]} and k.ne[0] is {k[0]}, they must be equal"
    if k[1] != v[1]:
        return f"k.ne[1] is {k[1]} and v.ne[1] is {v[1]}: as many values as keys, not transposed"
    for name, n in (("k", k), ("v", v)):
        if q[2] % n[2] or q[3] != n[3]:
            return f"{name} has {n[2]} heads and {n[3]} sequences, q has {q[2]} and {q[3]}"
    mask = values["mask"]
    if mask is not None and _ne(mask)[0] != k[1]:
        return f"mask.ne[0] is {_ne(mask)[0]}, expected k.ne[1] = {k[1]}"
    return None


@_rule("permute")
def _axes(values: _Values) -> str | None:
    axes = [values[f"axis{i}"] for i in range(4)]
    if sorted(axes) != [0, 1, 2, 3]:
        return f"the axes are a permutation of 0 1 2 3, got {' '.join(map(str, axes))}"
    if axes[0] != 0 and _type(values["a"]).block > 1:
        return f"axis 0 of {values['a'].dtype} cannot move: its values are stored in blocks"
    return None


@_rule("transpose")
def _transposable(values: _Values) -> str | None:
    if _type(values["a"]).block > 1:
        return f"{values['a'].dtype} cannot be transposed: its values are stored in blocks"
    return None


#
# Views
#


@_rule("reshape", "reshape_1d", "reshape_2d", "reshape_3d", "reshape_4d")
def _reshape(values: _Values) -> str | None:
    a = values["a"]
    if not ggml.ggml_is_contiguous(a._ptr):
        return f"a is not contiguous (nb {_nb(a)}); use cont() first"
    return _same_number(values)


@_rule("cont_1d", "cont_2d", "cont_3d", "cont_4d", "cpy")
def _same_number(values: _Values) -> str | None:
    if "b" in values:
        ne = _ne(values["b"])
    else:
        ne = tuple(values[n] for n in ("ne0", "ne1", "ne2", "ne3") if n in values)
    have, want = math.prod(_ne(values["a"])), math.prod(ne)
    return None if have == want else f"a has {have} elements, ne {ne} has {want}"


def _span(dtype: DType, ne: tuple[int, ...], nb: tuple[int, ...]) -> int:
    """Bytes from the first to the end of the last element."""
    return dtype.row_bytes(ne[0]) + sum((n - 1) * b for n, b in zip(ne[1:], nb))


def _misaligned(dtype: DType, values: _Values, names: Iterable[str]) -> str | None:
    for name in names:
        if values.get(name, 0) % dtype.nbytes:
            return f"{name} is {values[name]}, expected a multiple of {dtype.nbytes} ({dtype.name})"
    return None


@_rule("view_1d", "view_2d", "view_3d", "view_4d")
def _view(values: _Values) -> str | None:
    """Inside of the memory that is viewed: a view of a view may leave that, not its root."""
    a = values["a"]
    dtype = _type(a)
    if values["ne0"] % dtype.block:
        return f"ne0 is a multiple of {dtype.block} for {dtype.name}"
    if problem := _misaligned(dtype, values, ("nb1", "nb2", "nb3", "offset")):
        return problem
    ne = tuple(values[n] for n in ("ne0", "ne1", "ne2", "ne3") if n in values)
    nb = tuple(values[n] for n in ("nb1", "nb2", "nb3") if n in values)
    if len(nb) < len(ne) - 1:
        nb += (nb[-1] * ne[-2],)
    root = a._ptr if a._ptr.view_src == ffi.NULL else a._ptr.view_src
    end = a._ptr.view_offs + values["offset"] + _span(dtype, ne, nb)
    have = ggml.ggml_nbytes(root)
    return None if end <= have else f"the view ends at byte {end}, its tensor at {have}"


@_rule("set", "set_1d", "set_2d", "acc")
def _region(values: _Values) -> str | None:
    """b, laid out with the strides given, lies inside of a."""
    a, b = values["a"], values["b"]
    own = _nb(a)
    nb = tuple(values.get(f"nb{i}", own[i]) for i in (1, 2, 3))
    dtype = _type(a)
    if problem := _misaligned(dtype, values, ("nb1", "nb2", "nb3", "offset")):
        return problem
    if max(*nb, values["offset"]) >= 2**31:
        return "strides and offset must be below 2 GiB"
    end = values["offset"] + _span(dtype, _ne(b), nb)
    have = ggml.ggml_nbytes(a._ptr)
    return None if end <= have else f"b would end at byte {end} of a, which has {have}"


#
# Changes to tensors just built
#


@_rule("prec_set_acc", "prec_set_src")
def _has_precision(values: _Values) -> str | None:
    ops = ("MUL_MAT", "MUL_MAT_ID") + (() if "idx" in values else ("FLASH_ATTN_EXT",))
    if values["a"].op not in ops:
        return f"a is computed by {values['a'].op}; only {', '.join(ops)} have a precision"
    if values.get("idx", 1) != 1:
        return f"idx is {values['idx']}; only source 1 has a precision"
    return None


@_rule("soft_max_add_sinks")
def _sinks_of_soft_max(values: _Values) -> str | None:
    return _is_op(values["a"], "SOFT_MAX")


@_rule("flash_attn_ext_add_sinks", "flash_attn_ext_set_n_kv_max")
def _sinks_of_attention(values: _Values) -> str | None:
    return _is_op(values["a"], "FLASH_ATTN_EXT")


@_rule("rope_set_offset")
def _offset_of_rope(values: _Values) -> str | None:
    a = values["a"]
    if a.op not in ("ROPE", "ROPE_BACK"):
        return f"a is computed by {a.op}, expected ROPE"
    n_dims, width = a._ptr.op_params[1], _ne(a)[0]
    if values["n_offs"] < 0 or values["n_offs"] + n_dims > width:
        return f"n_offs is {values['n_offs']}, expected 0 to {width - n_dims}"
    return None


def _is_op(t: Tensor, op: str) -> str | None:
    return None if t.op == op else f"a is computed by {t.op}, expected {op}"
