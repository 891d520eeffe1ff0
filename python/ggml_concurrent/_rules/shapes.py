"""Shapes that have to fit, and operations that a tensor must be computed by."""

from __future__ import annotations

from .._native import ggml, lib
from ..tensor import Tensor
from .registry import Values, ne_of, rule, type_of


@rule("add", "sub", "mul", "div")
def _repeats(values: Values) -> str | None:
    a, b = ne_of(values["a"]), ne_of(values["b"])
    for i in range(4):
        if a[i] % b[i]:
            return f"b is repeated to a's shape, but a.ne[{i}] = {a[i]} is no multiple of {b[i]}"
    return None


def _sums_over(weight: str, values: Values) -> str | None:
    a, b = ne_of(values[weight]), ne_of(values["b"])
    if a[0] != b[0]:
        return (
            f"{weight}.ne[0] is {a[0]} and b.ne[0] is {b[0]}; the product sums over them, so they "
            "must be equal"
        )
    if ggml.ggml_is_transposed(values[weight]._ptr):
        return f"{weight} is transposed; make it contiguous with cont() first"
    return None


@rule("mul_mat")
def _matrix_product(values: Values) -> str | None:
    if problem := _sums_over("a", values):
        return problem
    a, b = ne_of(values["a"]), ne_of(values["b"])
    for i in (2, 3):
        if b[i] % a[i]:
            return f"a is repeated along ne[{i}], but b.ne[{i}] = {b[i]} is no multiple of {a[i]}"
    weight, x = type_of(values["a"]), type_of(values["b"])
    fits = x.name == "f32" or (x is weight and not x.quantized)
    fits = fits or (x.name == "bf16" and weight.name == "f32")
    return None if fits else f"b is {x.name}, expected f32 for a of {weight.name}"


@rule("mul_mat_id")
def _expert_product(values: Values) -> str | None:
    return _sums_over("as_", values)


@rule("rope", "rope_ext", "rope_multi", "rope_ext_back", "rope_multi_back")
def _rotation(values: Values) -> str | None:
    n_dims, width = values["n_dims"], ne_of(values["a"])[0]
    whole = values["mode"] == lib.GGML_ROPE_TYPE_VISION
    if n_dims < 2 or n_dims % 2 or n_dims > (width // 2 if whole else width):
        return f"n_dims is {n_dims}, expected an even number from 2 to a.ne[0] = {width}"
    sections = list(values.get("sections", [1]))
    if min(sections) < 0 or not 1 <= sum(sections) <= width:
        return f"sections are {sections}, expected numbers from 0 on with a sum of 1 to {width}"
    return None


@rule("soft_max_ext", "flash_attn_ext")
def _mask_height(values: Values) -> str | None:
    mask, rows = values["mask"], values.get("a") or values["q"]
    if mask is None or ne_of(mask)[1] >= ne_of(rows)[1]:
        return None
    return f"mask.ne[1] is {ne_of(mask)[1]}, it must be at least {ne_of(rows)[1]}, a row per query"


@rule("flash_attn_ext")
def _attention(values: Values) -> str | None:
    q, k, v = ne_of(values["q"]), ne_of(values["k"]), ne_of(values["v"])
    if q[0] != k[0]:
        return f"q.ne[0] is {q[0]} and k.ne[0] is {k[0]}, they must be equal"
    if k[1] != v[1]:
        return f"k.ne[1] is {k[1]} and v.ne[1] is {v[1]}: as many values as keys, not transposed"
    for name, n in (("k", k), ("v", v)):
        if q[2] % n[2] or q[3] != n[3]:
            return f"{name} has {n[2]} heads and {n[3]} sequences, q has {q[2]} and {q[3]}"
    mask = values["mask"]
    if mask is not None and ne_of(mask)[0] != k[1]:
        return f"mask.ne[0] is {ne_of(mask)[0]}, expected k.ne[1] = {k[1]}"
    return None


@rule("permute")
def _axes(values: Values) -> str | None:
    axes = [values[f"axis{i}"] for i in range(4)]
    if sorted(axes) != [0, 1, 2, 3]:
        return f"the axes are a permutation of 0 1 2 3, got {' '.join(map(str, axes))}"
    if axes[0] != 0 and type_of(values["a"]).block > 1:
        return f"axis 0 of {values['a'].dtype} cannot move: its values are stored in blocks"
    return None


@rule("transpose")
def _transposable(values: Values) -> str | None:
    if type_of(values["a"]).block > 1:
        return f"{values['a'].dtype} cannot be transposed: its values are stored in blocks"
    return None


#
# Changes to tensors just built
#


@rule("prec_set_acc", "prec_set_src")
def _has_precision(values: Values) -> str | None:
    ops = ("MUL_MAT", "MUL_MAT_ID") + (() if "idx" in values else ("FLASH_ATTN_EXT",))
    if values["a"].op not in ops:
        return f"a is computed by {values['a'].op}; only {', '.join(ops)} have a precision"
    if values.get("idx", 1) != 1:
        return f"idx is {values['idx']}; only source 1 has a precision"
    return None


@rule("soft_max_add_sinks")
def _sinks_of_soft_max(values: Values) -> str | None:
    return _is_op(values["a"], "SOFT_MAX")


@rule("flash_attn_ext_add_sinks", "flash_attn_ext_set_n_kv_max")
def _sinks_of_attention(values: Values) -> str | None:
    return _is_op(values["a"], "FLASH_ATTN_EXT")


@rule("rope_set_offset")
def _offset_of_rope(values: Values) -> str | None:
    a = values["a"]
    if a.op not in ("ROPE", "ROPE_BACK"):
        return f"a is computed by {a.op}, expected ROPE"
    n_dims, width = a._ptr.op_params[1], ne_of(a)[0]
    if values["n_offs"] < 0 or values["n_offs"] + n_dims > width:
        return f"n_offs is {values['n_offs']}, expected 0 to {width - n_dims}"
    return None


def _is_op(t: Tensor, op: str) -> str | None:
    return None if t.op == op else f"a is computed by {t.op}, expected {op}"
