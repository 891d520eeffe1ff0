"""What ggml's kernels take for granted about layouts and shapes.

Some of it they assert, at run time and on a thread of their own, which ends the process; the rest
they do not check at all, and read or write beyond the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from .._native import ggml
from ..dtypes import BY_ID
from .registry import Rule, Values, nb_of, ne_of, rule, type_of

#
# Layouts
#


def _rows_rule(parameters: Iterable[str]) -> Rule:
    def check(values: Values) -> str | None:
        for name in parameters:
            t = values[name]
            if nb_of(t)[0] != type_of(t).nbytes:
                return f"the rows of {name} are not contiguous; use cont() first"
        return None

    return check


def _whole_rule(parameters: Iterable[str]) -> Rule:
    def check(values: Values) -> str | None:
        for name in parameters:
            if not ggml.ggml_is_contiguous(values[name]._ptr):
                return f"{name} is not contiguous; use cont() first"
        return None

    return check


_CONVOLUTIONS = (
    "conv_1d conv_1d_ph conv_1d_dw conv_1d_dw_ph conv_2d conv_2d_sk_p0 conv_2d_s1_ph conv_2d_dw "
    "conv_2d_dw_direct conv_2d_direct conv_3d conv_3d_direct im2col im2col_3d"
)
# operations, and the parameters whose values lie one after another inside of a row
_ROWS = [
    ("sqr sqrt log sin cos norm rms_norm l2_norm group_norm clamp diag repeat repeat_4d", ("a",)),
    ("add sub mul div add_cast sum sum_rows mean cumsum argmax repeat_back out_prod", ("a",)),
    ("rope rope_ext rope_multi rope_ext_back rope_multi_back get_rows get_rows_back", ("a",)),
    ("add_id mul_mat conv_transpose_1d conv_transpose_2d_p0", ("a", "b")),
    ("mul_mat_id", ("as_", "b")),
    ("cross_entropy_loss", ("a", "b")),
    ("acc set set_1d set_2d", ("b",)),
    (_CONVOLUTIONS, ("b",)),
    ("flash_attn_ext", ("q", "k", "v")),
    ("timestep_embedding", ("timesteps",)),
    ("ssm_conv", ("c",)),
    ("ssm_scan", ("s", "x", "dt", "A", "B", "C")),
    ("lightning_indexer", ("q", "k", "weights", "mask")),
]
# operations, and the parameters that are contiguous as a whole
_WHOLE = [
    ("scale scale_bias set set_1d set_2d diag_mask_inf diag_mask_zero leaky_relu xielu", ("a",)),
    ("win_part win_unpart get_rel_pos pool_1d pool_2d pool_2d_back im2col_back", ("a",)),
    ("conv_2d_direct conv_3d_direct", ("a",)),
    ("conv_2d_dw_direct", ("a", "b")),
    ("silu_back rms_norm_back soft_max_ext_back count_equal", ("a", "b")),
    ("cross_entropy_loss_back", ("a", "b", "c")),
    ("pool_2d_back", ("af",)),
    ("ssm_conv", ("sx",)),
]
for _ops, _parameters in _ROWS:
    rule(*_ops.split())(_rows_rule(_parameters))
for _ops, _parameters in _WHOLE:
    rule(*_ops.split())(_whole_rule(_parameters))


@rule("cpy")
def _quantizable_copy(values: Values) -> str | None:
    a, b = values["a"], values["b"]
    if type_of(a) is type_of(b) or not type_of(b).quantized:
        return None
    return _rows_rule(("a",))(values) or _whole_rule(("b",))(values)


@rule("cast")
def _quantizable_cast(values: Values) -> str | None:
    a = type_of(values["a"])
    target = BY_ID[values["type"]]
    return _rows_rule(("a",))(values) if target.quantized and target is not a else None


#
# Shapes
#


@rule("silu_back", "rms_norm_back", "soft_max_ext_back")
def _same_shape(values: Values) -> str | None:
    a, b = ne_of(values["a"]), ne_of(values["b"])
    return None if a == b else f"a has ne {a} and b {b}, they must be equal"


@rule("add", "add_cast")
def _quantized_sum(values: Values) -> str | None:
    return _same_shape(values) if type_of(values["a"]).quantized else None


@rule("im2col_back")
def _gradient_of_columns(values: Values) -> str | None:
    """a is the gradient of the columns and b the kernel, whatever ggml.h says."""
    ne, kernel, a = list(values["ne"]), ne_of(values["b"]), ne_of(values["a"])
    if values["is_2D"]:
        columns, batch, have = kernel[0] * kernel[1] * ne[2], ne[3], a[3]
    else:
        columns, batch, have = kernel[0] * ne[1], ne[2], a[2]
    if a[0] == columns and have == batch:
        return None
    return f"a holds the gradient: expected {columns} values a column and {batch} batches"


@rule("pool_2d_back")
def _planes(values: Values) -> str | None:
    a, af = ne_of(values["a"])[2:], ne_of(values["af"])[2:]
    return None if a == af else f"a has {a} planes and af {af}, they must be equal"


@rule("win_unpart")
def _windows(values: Values) -> str | None:
    w, a = values["w"], ne_of(values["a"])
    n = math.ceil(values["w0"] / w) * math.ceil(values["h0"] / w)
    if a[1] == a[2] == w and a[3] == n:
        return None
    return f"expected {n} windows of {w} by {w}, got {a[3]} of {a[1]} by {a[2]}"


@rule("rwkv_wkv6", "rwkv_wkv7", "gated_linear_attn")
def _recurrent(values: Values) -> str | None:
    k, n_seqs = ne_of(values["k"]), ne_of(values["state"])[1]
    if k[2] % n_seqs:
        return f"{k[2]} tokens are no multiple of {n_seqs} sequences"
    if "w" in values and k[0] % 64:
        return f"the heads have {k[0]} values, expected a multiple of 64"
    if "tf" in values and math.prod(ne_of(values["tf"])) != k[0] * k[1]:
        return f"tf has {math.prod(ne_of(values['tf']))} values, expected {k[0] * k[1]}"
    return None


@rule("gated_delta_net")
def _delta_heads(values: Values) -> str | None:
    q, k, v = (ne_of(values[name]) for name in ("q", "k", "v"))
    if q != k or q[0] != v[0] or q[2:] != v[2:] or v[1] % q[1]:
        return f"q and k have ne {q} and {k}: expected both like v {v}, or a divisor of its heads"
    for name in ("g", "beta"):
        if ne_of(values[name])[1:] != v[1:]:
            return f"{name} has ne {ne_of(values[name])}, expected {v[1:]} after the first"
    return None
