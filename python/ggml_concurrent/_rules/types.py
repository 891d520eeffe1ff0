"""Types that ggml's kernels compute with.

A kernel that meets another type ends the process, at run time and on a thread of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from .._native import lib
from ..dtypes import BY_ID, BY_NAME, DType
from .registry import Values, rule, type_of

_FLOATS = ("f32", "f16", "bf16")
_QUANTIZED = tuple(t.name for t in BY_ID.values() if t.quantized)
# Intermediate forms of products: nothing multiplies by them.
_WEIGHTS = _FLOATS + tuple(t for t in _QUANTIZED if t not in ("q8_1", "q8_K"))


def _types(parameter: str, allowed: Iterable[str], ops: str) -> None:
    """Registers the types that a parameter of these operations may have."""
    ids = {BY_NAME[name.lower()].id for name in allowed}
    text = " ".join(allowed) if len(ids) < 8 else "a float or quantised type"

    def check(values: Values) -> str | None:
        t = values[parameter]
        if t is None or t._ptr.type in ids:
            return None
        return f"{parameter} is {t.dtype}, expected {text}"

    rule(*ops.split())(check)


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
    "add_id acc add_rel_pos im2col_back cross_entropy_loss cross_entropy_loss_back opt_step_adamw "
    "opt_step_sgd",
)
_types("a", ["f32", "bf16"], "scale scale_bias")
_types(
    "a",
    ["f32", "f16"],
    "clamp fill leaky_relu silu_back swiglu_clamp rope rope_ext rope_multi "
    "rope_ext_back rope_multi_back get_rows_back conv_transpose_1d conv_transpose_2d_p0 "
    "conv_2d_direct conv_3d_direct pool_1d pool_2d pool_2d_back",
)
_types("a", ["f16", "bf16"], "get_rel_pos")
_types("a", ["i32"], "count_equal")
_types("a", [*_FLOATS, "i16", "i32"], "repeat repeat_4d")
_types("a", [*_FLOATS, "i8", "i16", "i32"], "concat")
_types("a", ["f32", "i32"], "set set_1d set_2d")
_types("a", _WEIGHTS, "add mul_mat")
_types("a", [t for t in _WEIGHTS if t != "bf16"], "out_prod")
_types("as_", _WEIGHTS, "mul_mat_id")
_types("a", [*_WEIGHTS, "i32"], "get_rows")
_types("a", [*_FLOATS, *_QUANTIZED], "set_rows")
_types(
    "b",
    ["f32"],
    "mul_mat_id out_prod rms_norm_back soft_max_ext_back add_id acc swiglu_oai "
    "conv_1d conv_1d_ph conv_1d_dw conv_1d_dw_ph conv_2d conv_2d_sk_p0 conv_2d_s1_ph conv_2d_dw "
    "conv_2d_dw_direct conv_2d_direct conv_3d conv_3d_direct conv_transpose_1d "
    "conv_transpose_2d_p0 im2col_3d cross_entropy_loss cross_entropy_loss_back",
)
_types(
    "a",
    _FLOATS,
    "conv_1d conv_1d_ph conv_1d_dw conv_1d_dw_ph conv_2d conv_2d_sk_p0 conv_2d_s1_ph conv_3d",
)
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
_types("k", _WEIGHTS, "lightning_indexer")
_types("b", ["f32", "f16"], "im2col_back")


@rule("sub", "mul", "div", "add")
def _operand_types(values: Values) -> str | None:
    a, b = type_of(values["a"]), type_of(values["b"])
    if b.name == "f32" or (b is a and not a.quantized):
        return None
    return f"b is {b.name}, expected f32 or a's type if that is a float type"


@rule("set", "set_1d", "set_2d", "silu_back", "swiglu_clamp", "count_equal")
def _same_type(values: Values) -> str | None:
    a, b = type_of(values["a"]), type_of(values["b"])
    return None if a is b else f"a is {a.name} and b is {b.name}, they must be the same"


@rule("im2col", "im2col_3d")
def _column_type(values: Values) -> str | None:
    column, b = BY_ID[values["dst_type"]].name, type_of(values["b"]).name
    if column not in ("f32", "f16"):
        return f"dst_type is {column}, expected f32 or f16"
    return None if b in ("f32", column) else f"b is {b}, expected f32 for columns of {column}"


@rule("add_cast")
def _sum_type(values: Values) -> str | None:
    a, b, result = type_of(values["a"]), type_of(values["b"]), BY_ID[values["type"]]
    if b.name == "f32" and (result.name == "f32" or result is a):
        return None
    if b is a is result and not a.quantized:
        return None
    return f"expected b of f32 and a sum of f32 or a's type, got b of {b.name}, {result.name}"


@rule("glu", "glu_split")
def _gate_type(values: Values) -> str | None:
    a = type_of(values["a"]).name
    narrow = {lib.GGML_GLU_OP_SWIGLU_OAI: ("f32",), lib.GGML_GLU_OP_SWIGLU_CLAMP: ("f32", "f16")}
    allowed = narrow.get(values["op"], _FLOATS)
    return None if a in allowed else f"a is {a}, this gate is computed of {' '.join(allowed)}"


def _copies(source: DType, target: DType) -> bool:
    """Whether ggml converts one type into the other."""
    if source is target:
        return True
    if source.quantized:
        return target.name == "f32"
    if source.name in _FLOATS:
        to_integer = source.name == "f32" and target.name == "i32"
        return target.name in _FLOATS or to_integer or _has_quantizer(target)
    return source.name == "i32" and target.name == "f32"


def _has_quantizer(dtype: DType) -> bool:
    """Whether kernels can write the type: those that need an importance matrix they cannot."""
    unwritable = ("iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq1_s", "iq1_m")
    return dtype.quantized and dtype.name not in unwritable


@rule("cpy")
def _copy_types(values: Values) -> str | None:
    a, b = type_of(values["a"]), type_of(values["b"])
    return None if _copies(a, b) else f"ggml does not convert {a.name} to {b.name}"


@rule("cast")
def _cast_types(values: Values) -> str | None:
    a, b = type_of(values["a"]), BY_ID[values["type"]]
    return None if _copies(a, b) else f"ggml does not convert {a.name} to {b.name}"


@rule("set_rows")
def _row_types(values: Values) -> str | None:
    a = type_of(values["a"])
    return None if not a.quantized or _has_quantizer(a) else f"ggml cannot write {a.name}"
