"""For each builder arguments that are right: what tests compute, and what they then spoil."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ggml_concurrent as ggc
from ggml_concurrent._ops import SPECS

# make("f32", 8, 4): an input of that type and ne
Make = Callable[..., ggc.Tensor]
Recipe = Callable[[Make], tuple[Any, ...]]

_UNARY = (
    "dup abs sgn neg step tanh elu relu sigmoid gelu gelu_erf gelu_quick silu hardswish "
    "hardsigmoid exp expm1 softplus floor ceil round trunc sqr sqrt log sin cos cont soft_max "
    "sum sum_rows cumsum mean reglu geglu swiglu geglu_erf geglu_quick reglu_swapped "
    "geglu_swapped swiglu_swapped geglu_erf_swapped geglu_quick_swapped"
).split()
_PAIRS = (
    "add sub mul div silu_back reglu_split geglu_split swiglu_split geglu_erf_split "
    "geglu_quick_split cross_entropy_loss"
).split()

# n_dims, mode, n_ctx_orig, freq_base, freq_scale, ext_factor, attn_factor, beta_fast, beta_slow
_ROPE = (8, "neox", 0, 10000.0, 1.0, 0.0, 1.0, 32.0, 1.0)
_CONV = (1, 1, 1, 1, 1, 1)  # strides, paddings, dilations of two dimensions
_CONV_3D = (1, 1, 1, 0, 0, 0, 1, 1, 1)


def _scan(make: Make) -> tuple[Any, ...]:
    """Mamba-2: 4 states, heads of 8, 2 heads, 3 tokens, 1 sequence, 1 group."""
    x, dt, a = make("f32", 8, 2, 3, 1), make("f32", 2, 3), make("f32", 1, 2)
    b, c = make("f32", 4, 1, 3, 1), make("f32", 4, 1, 3, 1)
    return make("f32", 4, 8, 2, 1), x, dt, a, b, c, make("i32", 1), 1


def _delta(make: Make) -> tuple[Any, ...]:
    """Gated delta rule: heads of 8, 2 heads, 3 tokens, 1 sequence."""
    q, k, v = (make("f32", 8, 2, 3, 1) for _ in range(3))
    return q, k, v, make("f32", 1, 2, 3, 1), make("f32", 1, 2, 3, 1), make("f32", 8, 8, 2, 1), 1


def _indexer(make: Make) -> tuple[Any, ...]:
    """Keys of 128, 4 heads, 3 queries, 5 keys."""
    q, k = make("f32", 128, 4, 3), make("f32", 128, 1, 5)
    return q, k, make("f32", 4, 3), make("f16", 5, 3)


RECIPES: dict[str, Recipe] = {
    **{op: lambda m: (m("f32", 8, 4, 2),) for op in _UNARY},
    **{op: lambda m: (m("f32", 8, 4), m("f32", 8, 4)) for op in _PAIRS},
    "add_cast": lambda m: (m("f16", 8, 4), m("f32", 8, 4), "f32"),
    "add_id": lambda m: (m("f32", 8, 2, 3), m("f32", 8, 5), m("i32", 2, 3)),
    "acc": lambda m: (m("f32", 8, 4), m("f32", 4, 2), 32, 128, 128, 16),
    "set": lambda m: (m("f32", 8, 4), m("f32", 4, 2), 32, 128, 128, 16),
    "set_1d": lambda m: (m("f32", 8, 4), m("f32", 4), 16),
    "set_2d": lambda m: (m("f32", 8, 4), m("f32", 4, 2), 32, 16),
    "argmax": lambda m: (m("f32", 8, 4),),
    "count_equal": lambda m: (m("i32", 8, 4), m("i32", 8, 4)),
    "repeat": lambda m: (m("f32", 4, 2), m("f32", 8, 4)),
    "repeat_4d": lambda m: (m("f32", 4, 2), 8, 4, 2, 1),
    "repeat_back": lambda m: (m("f32", 8, 4), m("f32", 4, 2)),
    "concat": lambda m: (m("f32", 8, 4), m("f32", 8, 3), 1),
    "leaky_relu": lambda m: (m("f32", 8, 4), 0.1, False),
    "xielu": lambda m: (m("f32", 8, 4), 0.8, 0.8, 0.5, 1e-6),
    "unary": lambda m: (m("f32", 8, 4), "silu"),
    "glu": lambda m: (m("f32", 8, 4), "swiglu", False),
    "glu_split": lambda m: (m("f32", 8, 4), m("f32", 8, 4), "geglu"),
    "swiglu_oai": lambda m: (m("f32", 8, 4), m("f32", 8, 4), 1.7, 7.0),
    "swiglu_clamp": lambda m: (m("f32", 8, 4), m("f32", 8, 4), 7.0),
    **{op: lambda m: (m("f32", 8, 4), 1e-6) for op in ("norm", "rms_norm", "l2_norm")},
    "group_norm": lambda m: (m("f32", 8, 4, 4), 2, 1e-6),
    "rms_norm_back": lambda m: (m("f32", 8, 4), m("f32", 8, 4), 1e-6),
    "mul_mat": lambda m: (m("f16", 8, 6), m("f32", 8, 4)),
    "mul_mat_id": lambda m: (m("f32", 8, 6, 5), m("f32", 8, 1, 3), m("i32", 2, 3)),
    "out_prod": lambda m: (m("f32", 8, 4), m("f32", 6, 4)),
    "scale": lambda m: (m("f32", 8, 4), 2.0),
    "scale_bias": lambda m: (m("f32", 8, 4), 2.0, 1.0),
    "cpy": lambda m: (m("f32", 8, 4), m("f16", 8, 4)),
    "cast": lambda m: (m("f32", 32, 4), "q8_0"),
    "cont_1d": lambda m: (m("f32", 8, 4), 32),
    "cont_2d": lambda m: (m("f32", 8, 4), 4, 8),
    "cont_3d": lambda m: (m("f32", 8, 4), 4, 4, 2),
    "cont_4d": lambda m: (m("f32", 8, 4), 4, 2, 2, 2),
    "reshape": lambda m: (m("f32", 8, 4), m("f32", 4, 8)),
    "reshape_1d": lambda m: (m("f32", 8, 4), 32),
    "reshape_2d": lambda m: (m("f32", 8, 4), 4, 8),
    "reshape_3d": lambda m: (m("f32", 8, 4), 4, 4, 2),
    "reshape_4d": lambda m: (m("f32", 8, 4), 4, 2, 2, 2),
    "view_1d": lambda m: (m("f32", 8, 4), 8, 32),
    "view_2d": lambda m: (m("f32", 8, 4), 4, 2, 32, 16),
    "view_3d": lambda m: (m("f32", 8, 4, 2), 4, 2, 2, 32, 128, 16),
    "view_4d": lambda m: (m("f32", 8, 4, 2, 2), 4, 2, 2, 2, 32, 128, 256, 16),
    "permute": lambda m: (m("f32", 8, 4, 2), 0, 2, 1, 3),
    "transpose": lambda m: (m("f32", 8, 4),),
    "get_rows": lambda m: (m("f16", 8, 6), m("i32", 3)),
    "get_rows_back": lambda m: (m("f32", 8, 3), m("i32", 3), m("f32", 8, 6)),
    "set_rows": lambda m: (m("f16", 8, 6), m("f32", 8, 3), m("i64", 3)),
    "diag": lambda m: (m("f32", 8),),
    "diag_mask_inf": lambda m: (m("f32", 8, 8), 0),
    "diag_mask_zero": lambda m: (m("f32", 8, 8), 0),
    "clamp": lambda m: (m("f32", 8, 4), -0.5, 0.5),
    "soft_max_ext": lambda m: (m("f32", 8, 4, 2), m("f16", 8, 4), 0.5, 0.0),
    "soft_max_ext_back": lambda m: (m("f32", 8, 4), m("f32", 8, 4), 0.5, 0.0),
    "rope": lambda m: (m("f32", 8, 4, 3), m("i32", 3), 8, "neox"),
    "rope_ext": lambda m: (m("f32", 8, 4, 3), m("i32", 3), m("f32", 4), *_ROPE),
    "rope_ext_back": lambda m: (m("f32", 8, 4, 3), m("i32", 3), None, *_ROPE),
    "rope_multi": lambda m: (
        m("f32", 8, 4, 3),
        m("i32", 12),
        None,
        8,
        [2, 1, 1, 0],
        "mrope",
        *_ROPE[2:],
    ),
    "rope_multi_back": lambda m: (
        m("f32", 8, 4, 3),
        m("i32", 12),
        None,
        8,
        [2, 1, 1, 0],
        "mrope",
        *_ROPE[2:],
    ),
    "im2col": lambda m: (m("f16", 3, 3, 2, 4), m("f32", 6, 6, 2, 1), *_CONV, True, "f16"),
    "im2col_back": lambda m: (
        m("f32", 18, 6, 6, 1),
        m("f32", 3, 3, 2, 4),
        [6, 6, 2, 1],
        *_CONV,
        True,
    ),
    "im2col_3d": lambda m: (m("f16", 2, 2, 2, 8), m("f32", 4, 4, 4, 2), 2, *_CONV_3D, "f16"),
    "col2im_1d": lambda m: (m("f32", 6, 4), 2, 2, 0),
    "conv_1d": lambda m: (m("f16", 3, 2, 4), m("f32", 8, 2), 1, 1, 1),
    "conv_1d_ph": lambda m: (m("f16", 3, 2, 4), m("f32", 8, 2), 1, 1),
    "conv_1d_dw": lambda m: (m("f16", 3, 1, 2), m("f32", 8, 2), 1, 1, 1),
    "conv_1d_dw_ph": lambda m: (m("f16", 3, 1, 2), m("f32", 8, 2), 1, 1),
    "conv_transpose_1d": lambda m: (m("f16", 3, 4, 2), m("f32", 8, 2), 1, 0, 1),
    "conv_2d": lambda m: (m("f16", 3, 3, 2, 4), m("f32", 6, 6, 2, 1), *_CONV),
    "conv_2d_sk_p0": lambda m: (m("f16", 3, 3, 2, 4), m("f32", 6, 6, 2, 1)),
    "conv_2d_s1_ph": lambda m: (m("f16", 3, 3, 2, 4), m("f32", 6, 6, 2, 1)),
    "conv_2d_dw": lambda m: (m("f16", 3, 3, 1, 2), m("f32", 6, 6, 2, 1), *_CONV),
    "conv_2d_dw_direct": lambda m: (m("f32", 3, 3, 1, 2), m("f32", 6, 6, 2, 1), *_CONV),
    "conv_2d_direct": lambda m: (m("f16", 3, 3, 2, 4), m("f32", 6, 6, 2, 1), *_CONV),
    "conv_transpose_2d_p0": lambda m: (m("f16", 3, 3, 4, 2), m("f32", 6, 6, 2, 1), 2),
    "conv_3d": lambda m: (m("f16", 2, 2, 2, 8), m("f32", 4, 4, 4, 2), 2, *_CONV_3D),
    "conv_3d_direct": lambda m: (m("f16", 2, 2, 2, 8), m("f32", 4, 4, 4, 2), *_CONV_3D, 2, 1, 4),
    "pool_1d": lambda m: (m("f32", 8, 4), "avg", 2, 2, 0),
    "pool_2d": lambda m: (m("f32", 6, 6, 2), "max", 2, 2, 2, 2, 0.0, 0.0),
    "pool_2d_back": lambda m: (m("f32", 3, 3, 2), m("f32", 6, 6, 2), "max", 2, 2, 2, 2, 0.0, 0.0),
    "upscale": lambda m: (m("f32", 4, 4, 2), 2, "bilinear"),
    "interpolate": lambda m: (m("f32", 4, 4, 2), 6, 6, 2, 1, "nearest"),
    "pad": lambda m: (m("f32", 8, 4), 1, 1, 0, 0),
    "pad_circular": lambda m: (m("f32", 8, 4), 1, 1, 0, 0),
    "pad_ext": lambda m: (m("f32", 8, 4), 1, 1, 1, 1, 0, 0, 0, 0),
    "pad_ext_circular": lambda m: (m("f32", 8, 4), 1, 1, 1, 1, 0, 0, 0, 0),
    "pad_reflect_1d": lambda m: (m("f32", 8, 4), 2, 3),
    "roll": lambda m: (m("f32", 8, 4), 3, -1, 0, 0),
    "tri": lambda m: (m("f32", 4, 4), "lower"),
    "fill": lambda m: (m("f32", 8, 4), 2.0),
    "timestep_embedding": lambda m: (m("f32", 4), 8, 10000),
    "argsort": lambda m: (m("f32", 8, 4), "desc"),
    "argsort_top_k": lambda m: (m("f32", 8, 4), 3),
    "top_k": lambda m: (m("f32", 8, 4), 3),
    "arange": lambda _: (0.0, 8.0, 1.0),
    "flash_attn_ext": lambda m: (
        m("f32", 8, 3, 4),
        m("f16", 8, 5, 2),
        m("f16", 8, 5, 2),
        m("f16", 5, 3),
        0.3,
        0.0,
        0.0,
    ),
    "ssm_conv": lambda m: (m("f32", 6, 8, 1), m("f32", 4, 8)),
    "ssm_scan": _scan,
    "win_part": lambda m: (m("f32", 4, 6, 6), 4),
    "win_unpart": lambda m: (m("f32", 4, 4, 4, 4), 6, 6, 4),
    "get_rel_pos": lambda m: (m("f16", 8, 7), 4, 4),
    "add_rel_pos": lambda m: (m("f32", 16, 6, 2), m("f32", 4, 3, 2, 2), m("f32", 4, 3, 2, 2)),
    "rwkv_wkv6": lambda m: (
        *(m("f32", 8, 2, 3) for _ in range(3)),
        m("f32", 8, 2),
        m("f32", 8, 2, 3),
        m("f32", 128, 1),
    ),
    "gated_linear_attn": lambda m: (*(m("f32", 8, 2, 3) for _ in range(4)), m("f32", 128, 1), 0.5),
    "rwkv_wkv7": lambda m: (*(m("f32", 64, 2, 3) for _ in range(6)), m("f32", 8192, 1)),
    "solve_tri": lambda m: (m("f32", 4, 4), m("f32", 3, 4), True, True, False),
    "gated_delta_net": _delta,
    "lightning_indexer": _indexer,
    "dsv4_hc_comb": lambda m: (m("f32", 24, 3), m("f32", 3), m("f32", 24), 1e-6, 2),
    "dsv4_hc_pre": lambda m: (m("f32", 8, 4, 3), m("f32", 4, 3)),
    "dsv4_hc_pre_gated": lambda m: (m("f32", 8, 4, 3), m("f32", 8, 4, 3), 0.5),
    "dsv4_hc_post": lambda m: (
        m("f32", 8, 3),
        m("f32", 8, 4, 3),
        m("f32", 4, 3),
        m("f32", 4, 4, 3),
    ),
    "cross_entropy_loss_back": lambda m: (m("f32", 1), m("f32", 8, 4), m("f32", 8, 4)),
    "opt_step_adamw": lambda m: (*(m("f32", 8, 4) for _ in range(4)), m("f32", 7)),
    "opt_step_sgd": lambda m: (m("f32", 8, 4), m("f32", 8, 4), m("f32", 2)),
}
RECIPES.update(
    {
        op: RECIPES[op.removesuffix("_inplace")]
        for op in SPECS
        if op.endswith("_inplace") and op not in RECIPES
    }
)

# Methods that change a tensor: the builder of that tensor, and the further arguments.
CHANGES: dict[str, tuple[str | None, Recipe]] = {
    "set_param": (None, lambda m: (m("f32", 8, 4),)),
    "set_loss": ("sum", lambda _: ()),
    "prec_set_acc": ("mul_mat", lambda _: ("f32",)),
    "prec_set_src": ("mul_mat", lambda _: ("f32", 1)),
    "mul_mat_set_hint": ("mul_mat", lambda _: ("none",)),
    "soft_max_add_sinks": ("soft_max_ext", lambda m: (m("f32", 2),)),
    "rope_set_offset": ("rope", lambda _: (0,)),
    "flash_attn_ext_add_sinks": ("flash_attn_ext", lambda m: (m("f32", 4),)),
    "flash_attn_ext_set_n_kv_max": ("flash_attn_ext", lambda _: (4,)),
}


def make_in(graph: ggc.Graph) -> Make:
    """Inputs with made-up names."""

    def make(dtype: str, *ne: int) -> ggc.Tensor:
        return graph.input(f"in{len(graph.inputs)}", dtype, ne)

    return make


def right_arguments(graph: ggc.Graph, op: str) -> list[Any]:
    """Arguments with which the method builds, or changes, a tensor of this graph."""
    make = make_in(graph)
    if op in RECIPES:
        arguments = list(RECIPES[op](make))
        if op.startswith("opt_step"):
            graph.set_param(arguments[0])
        return arguments
    base, further = CHANGES[op]
    first = [getattr(graph, base)(*right_arguments(graph, base))] if base else []
    return [*first, *further(make)]


def all_methods() -> Iterator[str]:
    """Every generated method of Graph."""
    return iter(SPECS)
