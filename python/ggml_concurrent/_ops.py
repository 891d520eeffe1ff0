"""The operations of ggml.h as methods of Graph.

Written by scripts/generate_bindings.py from ggml.h: do not edit.
Parameters have the names and the order of ggml.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dtypes import DTypeLike
    from .tensor import Tensor

# name -> (parameter, kind) in the order of the call, the context left out
SPECS: dict[str, tuple[tuple[str, str], ...]] = {
    "dup": (("a", "tensor"),),
    "dup_inplace": (("a", "tensor"),),
    "add": (("a", "tensor"), ("b", "tensor")),
    "add_inplace": (("a", "tensor"), ("b", "tensor")),
    "add_cast": (("a", "tensor"), ("b", "tensor"), ("type", "dtype")),
    "add_id": (("a", "tensor"), ("b", "tensor"), ("ids", "tensor")),
    "acc": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("nb1", "size"),
        ("nb2", "size"),
        ("nb3", "size"),
        ("offset", "size"),
    ),
    "acc_inplace": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("nb1", "size"),
        ("nb2", "size"),
        ("nb3", "size"),
        ("offset", "size"),
    ),
    "sub": (("a", "tensor"), ("b", "tensor")),
    "sub_inplace": (("a", "tensor"), ("b", "tensor")),
    "mul": (("a", "tensor"), ("b", "tensor")),
    "mul_inplace": (("a", "tensor"), ("b", "tensor")),
    "div": (("a", "tensor"), ("b", "tensor")),
    "div_inplace": (("a", "tensor"), ("b", "tensor")),
    "sqr": (("a", "tensor"),),
    "sqr_inplace": (("a", "tensor"),),
    "sqrt": (("a", "tensor"),),
    "sqrt_inplace": (("a", "tensor"),),
    "log": (("a", "tensor"),),
    "log_inplace": (("a", "tensor"),),
    "expm1": (("a", "tensor"),),
    "expm1_inplace": (("a", "tensor"),),
    "softplus": (("a", "tensor"),),
    "softplus_inplace": (("a", "tensor"),),
    "sin": (("a", "tensor"),),
    "sin_inplace": (("a", "tensor"),),
    "cos": (("a", "tensor"),),
    "cos_inplace": (("a", "tensor"),),
    "sum": (("a", "tensor"),),
    "sum_rows": (("a", "tensor"),),
    "cumsum": (("a", "tensor"),),
    "mean": (("a", "tensor"),),
    "argmax": (("a", "tensor"),),
    "count_equal": (("a", "tensor"), ("b", "tensor")),
    "repeat": (("a", "tensor"), ("b", "tensor")),
    "repeat_4d": (("a", "tensor"), ("ne0", "i64"), ("ne1", "i64"), ("ne2", "i64"), ("ne3", "i64")),
    "repeat_back": (("a", "tensor"), ("b", "tensor")),
    "concat": (("a", "tensor"), ("b", "tensor"), ("dim", "i32")),
    "abs": (("a", "tensor"),),
    "abs_inplace": (("a", "tensor"),),
    "sgn": (("a", "tensor"),),
    "sgn_inplace": (("a", "tensor"),),
    "neg": (("a", "tensor"),),
    "neg_inplace": (("a", "tensor"),),
    "step": (("a", "tensor"),),
    "step_inplace": (("a", "tensor"),),
    "tanh": (("a", "tensor"),),
    "tanh_inplace": (("a", "tensor"),),
    "elu": (("a", "tensor"),),
    "elu_inplace": (("a", "tensor"),),
    "relu": (("a", "tensor"),),
    "leaky_relu": (("a", "tensor"), ("negative_slope", "f32"), ("inplace", "bool")),
    "relu_inplace": (("a", "tensor"),),
    "sigmoid": (("a", "tensor"),),
    "sigmoid_inplace": (("a", "tensor"),),
    "gelu": (("a", "tensor"),),
    "gelu_inplace": (("a", "tensor"),),
    "gelu_erf": (("a", "tensor"),),
    "gelu_erf_inplace": (("a", "tensor"),),
    "gelu_quick": (("a", "tensor"),),
    "gelu_quick_inplace": (("a", "tensor"),),
    "silu": (("a", "tensor"),),
    "silu_inplace": (("a", "tensor"),),
    "silu_back": (("a", "tensor"), ("b", "tensor")),
    "hardswish": (("a", "tensor"),),
    "hardsigmoid": (("a", "tensor"),),
    "exp": (("a", "tensor"),),
    "exp_inplace": (("a", "tensor"),),
    "floor": (("a", "tensor"),),
    "floor_inplace": (("a", "tensor"),),
    "ceil": (("a", "tensor"),),
    "ceil_inplace": (("a", "tensor"),),
    "round": (("a", "tensor"),),
    "round_inplace": (("a", "tensor"),),
    "trunc": (("a", "tensor"),),
    "trunc_inplace": (("a", "tensor"),),
    "xielu": (
        ("a", "tensor"),
        ("alpha_n", "f32"),
        ("alpha_p", "f32"),
        ("beta", "f32"),
        ("eps", "f32"),
    ),
    "glu": (("a", "tensor"), ("op", "enum ggml_glu_op"), ("swapped", "bool")),
    "reglu": (("a", "tensor"),),
    "reglu_swapped": (("a", "tensor"),),
    "geglu": (("a", "tensor"),),
    "geglu_swapped": (("a", "tensor"),),
    "swiglu": (("a", "tensor"),),
    "swiglu_swapped": (("a", "tensor"),),
    "geglu_erf": (("a", "tensor"),),
    "geglu_erf_swapped": (("a", "tensor"),),
    "geglu_quick": (("a", "tensor"),),
    "geglu_quick_swapped": (("a", "tensor"),),
    "glu_split": (("a", "tensor"), ("b", "tensor"), ("op", "enum ggml_glu_op")),
    "reglu_split": (("a", "tensor"), ("b", "tensor")),
    "geglu_split": (("a", "tensor"), ("b", "tensor")),
    "swiglu_split": (("a", "tensor"), ("b", "tensor")),
    "geglu_erf_split": (("a", "tensor"), ("b", "tensor")),
    "geglu_quick_split": (("a", "tensor"), ("b", "tensor")),
    "swiglu_oai": (("a", "tensor"), ("b", "tensor"), ("alpha", "f32"), ("limit", "f32")),
    "swiglu_clamp": (("a", "tensor"), ("b", "tensor"), ("limit", "f32")),
    "norm": (("a", "tensor"), ("eps", "f32")),
    "norm_inplace": (("a", "tensor"), ("eps", "f32")),
    "rms_norm": (("a", "tensor"), ("eps", "f32")),
    "rms_norm_inplace": (("a", "tensor"), ("eps", "f32")),
    "group_norm": (("a", "tensor"), ("n_groups", "i32"), ("eps", "f32")),
    "group_norm_inplace": (("a", "tensor"), ("n_groups", "i32"), ("eps", "f32")),
    "l2_norm": (("a", "tensor"), ("eps", "f32")),
    "l2_norm_inplace": (("a", "tensor"), ("eps", "f32")),
    "rms_norm_back": (("a", "tensor"), ("b", "tensor"), ("eps", "f32")),
    "mul_mat": (("a", "tensor"), ("b", "tensor")),
    "mul_mat_id": (("as_", "tensor"), ("b", "tensor"), ("ids", "tensor")),
    "out_prod": (("a", "tensor"), ("b", "tensor")),
    "scale": (("a", "tensor"), ("s", "f32")),
    "scale_inplace": (("a", "tensor"), ("s", "f32")),
    "scale_bias": (("a", "tensor"), ("s", "f32"), ("b", "f32")),
    "scale_bias_inplace": (("a", "tensor"), ("s", "f32"), ("b", "f32")),
    "set": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("nb1", "size"),
        ("nb2", "size"),
        ("nb3", "size"),
        ("offset", "size"),
    ),
    "set_inplace": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("nb1", "size"),
        ("nb2", "size"),
        ("nb3", "size"),
        ("offset", "size"),
    ),
    "set_1d": (("a", "tensor"), ("b", "tensor"), ("offset", "size")),
    "set_1d_inplace": (("a", "tensor"), ("b", "tensor"), ("offset", "size")),
    "set_2d": (("a", "tensor"), ("b", "tensor"), ("nb1", "size"), ("offset", "size")),
    "set_2d_inplace": (("a", "tensor"), ("b", "tensor"), ("nb1", "size"), ("offset", "size")),
    "cpy": (("a", "tensor"), ("b", "tensor")),
    "cast": (("a", "tensor"), ("type", "dtype")),
    "cont": (("a", "tensor"),),
    "cont_1d": (("a", "tensor"), ("ne0", "i64")),
    "cont_2d": (("a", "tensor"), ("ne0", "i64"), ("ne1", "i64")),
    "cont_3d": (("a", "tensor"), ("ne0", "i64"), ("ne1", "i64"), ("ne2", "i64")),
    "cont_4d": (("a", "tensor"), ("ne0", "i64"), ("ne1", "i64"), ("ne2", "i64"), ("ne3", "i64")),
    "reshape": (("a", "tensor"), ("b", "tensor")),
    "reshape_1d": (("a", "tensor"), ("ne0", "i64")),
    "reshape_2d": (("a", "tensor"), ("ne0", "i64"), ("ne1", "i64")),
    "reshape_3d": (("a", "tensor"), ("ne0", "i64"), ("ne1", "i64"), ("ne2", "i64")),
    "reshape_4d": (("a", "tensor"), ("ne0", "i64"), ("ne1", "i64"), ("ne2", "i64"), ("ne3", "i64")),
    "view_1d": (("a", "tensor"), ("ne0", "i64"), ("offset", "size")),
    "view_2d": (
        ("a", "tensor"),
        ("ne0", "i64"),
        ("ne1", "i64"),
        ("nb1", "size"),
        ("offset", "size"),
    ),
    "view_3d": (
        ("a", "tensor"),
        ("ne0", "i64"),
        ("ne1", "i64"),
        ("ne2", "i64"),
        ("nb1", "size"),
        ("nb2", "size"),
        ("offset", "size"),
    ),
    "view_4d": (
        ("a", "tensor"),
        ("ne0", "i64"),
        ("ne1", "i64"),
        ("ne2", "i64"),
        ("ne3", "i64"),
        ("nb1", "size"),
        ("nb2", "size"),
        ("nb3", "size"),
        ("offset", "size"),
    ),
    "permute": (
        ("a", "tensor"),
        ("axis0", "i32"),
        ("axis1", "i32"),
        ("axis2", "i32"),
        ("axis3", "i32"),
    ),
    "transpose": (("a", "tensor"),),
    "get_rows": (("a", "tensor"), ("b", "tensor")),
    "get_rows_back": (("a", "tensor"), ("b", "tensor"), ("c", "tensor")),
    "set_rows": (("a", "tensor"), ("b", "tensor"), ("c", "tensor")),
    "diag": (("a", "tensor"),),
    "diag_mask_inf": (("a", "tensor"), ("n_past", "i32")),
    "diag_mask_inf_inplace": (("a", "tensor"), ("n_past", "i32")),
    "diag_mask_zero": (("a", "tensor"), ("n_past", "i32")),
    "diag_mask_zero_inplace": (("a", "tensor"), ("n_past", "i32")),
    "clamp": (("a", "tensor"), ("min", "f32"), ("max", "f32")),
    "clamp_inplace": (("a", "tensor"), ("min", "f32"), ("max", "f32")),
    "soft_max": (("a", "tensor"),),
    "soft_max_inplace": (("a", "tensor"),),
    "soft_max_ext": (("a", "tensor"), ("mask", "tensor?"), ("scale", "f32"), ("max_bias", "f32")),
    "soft_max_ext_inplace": (
        ("a", "tensor"),
        ("mask", "tensor?"),
        ("scale", "f32"),
        ("max_bias", "f32"),
    ),
    "soft_max_ext_back": (("a", "tensor"), ("b", "tensor"), ("scale", "f32"), ("max_bias", "f32")),
    "soft_max_ext_back_inplace": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("scale", "f32"),
        ("max_bias", "f32"),
    ),
    "rope": (("a", "tensor"), ("b", "tensor"), ("n_dims", "i32"), ("mode", "enum GGML_ROPE_TYPE_")),
    "rope_inplace": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("n_dims", "i32"),
        ("mode", "enum GGML_ROPE_TYPE_"),
    ),
    "rope_ext": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("c", "tensor?"),
        ("n_dims", "i32"),
        ("mode", "enum GGML_ROPE_TYPE_"),
        ("n_ctx_orig", "i32"),
        ("freq_base", "f32"),
        ("freq_scale", "f32"),
        ("ext_factor", "f32"),
        ("attn_factor", "f32"),
        ("beta_fast", "f32"),
        ("beta_slow", "f32"),
    ),
    "rope_multi": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("c", "tensor?"),
        ("n_dims", "i32"),
        ("sections", "i32[4]"),
        ("mode", "enum GGML_ROPE_TYPE_"),
        ("n_ctx_orig", "i32"),
        ("freq_base", "f32"),
        ("freq_scale", "f32"),
        ("ext_factor", "f32"),
        ("attn_factor", "f32"),
        ("beta_fast", "f32"),
        ("beta_slow", "f32"),
    ),
    "rope_ext_inplace": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("c", "tensor?"),
        ("n_dims", "i32"),
        ("mode", "enum GGML_ROPE_TYPE_"),
        ("n_ctx_orig", "i32"),
        ("freq_base", "f32"),
        ("freq_scale", "f32"),
        ("ext_factor", "f32"),
        ("attn_factor", "f32"),
        ("beta_fast", "f32"),
        ("beta_slow", "f32"),
    ),
    "rope_multi_inplace": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("c", "tensor?"),
        ("n_dims", "i32"),
        ("sections", "i32[4]"),
        ("mode", "enum GGML_ROPE_TYPE_"),
        ("n_ctx_orig", "i32"),
        ("freq_base", "f32"),
        ("freq_scale", "f32"),
        ("ext_factor", "f32"),
        ("attn_factor", "f32"),
        ("beta_fast", "f32"),
        ("beta_slow", "f32"),
    ),
    "rope_ext_back": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("c", "tensor?"),
        ("n_dims", "i32"),
        ("mode", "enum GGML_ROPE_TYPE_"),
        ("n_ctx_orig", "i32"),
        ("freq_base", "f32"),
        ("freq_scale", "f32"),
        ("ext_factor", "f32"),
        ("attn_factor", "f32"),
        ("beta_fast", "f32"),
        ("beta_slow", "f32"),
    ),
    "rope_multi_back": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("c", "tensor?"),
        ("n_dims", "i32"),
        ("sections", "i32[4]"),
        ("mode", "enum GGML_ROPE_TYPE_"),
        ("n_ctx_orig", "i32"),
        ("freq_base", "f32"),
        ("freq_scale", "f32"),
        ("ext_factor", "f32"),
        ("attn_factor", "f32"),
        ("beta_fast", "f32"),
        ("beta_slow", "f32"),
    ),
    "im2col": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("s0", "i32"),
        ("s1", "i32"),
        ("p0", "i32"),
        ("p1", "i32"),
        ("d0", "i32"),
        ("d1", "i32"),
        ("is_2D", "bool"),
        ("dst_type", "dtype"),
    ),
    "im2col_back": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("ne", "i64[4]"),
        ("s0", "i32"),
        ("s1", "i32"),
        ("p0", "i32"),
        ("p1", "i32"),
        ("d0", "i32"),
        ("d1", "i32"),
        ("is_2D", "bool"),
    ),
    "col2im_1d": (("a", "tensor"), ("s0", "i32"), ("oc", "i32"), ("p0", "i32")),
    "conv_1d": (("a", "tensor"), ("b", "tensor"), ("s0", "i32"), ("p0", "i32"), ("d0", "i32")),
    "conv_1d_ph": (("a", "tensor"), ("b", "tensor"), ("s", "i32"), ("d", "i32")),
    "conv_1d_dw": (("a", "tensor"), ("b", "tensor"), ("s0", "i32"), ("p0", "i32"), ("d0", "i32")),
    "conv_1d_dw_ph": (("a", "tensor"), ("b", "tensor"), ("s0", "i32"), ("d0", "i32")),
    "conv_transpose_1d": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("s0", "i32"),
        ("p0", "i32"),
        ("d0", "i32"),
    ),
    "conv_2d": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("s0", "i32"),
        ("s1", "i32"),
        ("p0", "i32"),
        ("p1", "i32"),
        ("d0", "i32"),
        ("d1", "i32"),
    ),
    "im2col_3d": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("IC", "i64"),
        ("s0", "i32"),
        ("s1", "i32"),
        ("s2", "i32"),
        ("p0", "i32"),
        ("p1", "i32"),
        ("p2", "i32"),
        ("d0", "i32"),
        ("d1", "i32"),
        ("d2", "i32"),
        ("dst_type", "dtype"),
    ),
    "conv_3d": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("IC", "i64"),
        ("s0", "i32"),
        ("s1", "i32"),
        ("s2", "i32"),
        ("p0", "i32"),
        ("p1", "i32"),
        ("p2", "i32"),
        ("d0", "i32"),
        ("d1", "i32"),
        ("d2", "i32"),
    ),
    "conv_2d_sk_p0": (("a", "tensor"), ("b", "tensor")),
    "conv_2d_s1_ph": (("a", "tensor"), ("b", "tensor")),
    "conv_2d_dw": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("s0", "i32"),
        ("s1", "i32"),
        ("p0", "i32"),
        ("p1", "i32"),
        ("d0", "i32"),
        ("d1", "i32"),
    ),
    "conv_2d_dw_direct": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("stride0", "i32"),
        ("stride1", "i32"),
        ("pad0", "i32"),
        ("pad1", "i32"),
        ("dilation0", "i32"),
        ("dilation1", "i32"),
    ),
    "conv_transpose_2d_p0": (("a", "tensor"), ("b", "tensor"), ("stride", "i32")),
    "conv_2d_direct": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("s0", "i32"),
        ("s1", "i32"),
        ("p0", "i32"),
        ("p1", "i32"),
        ("d0", "i32"),
        ("d1", "i32"),
    ),
    "conv_3d_direct": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("s0", "i32"),
        ("s1", "i32"),
        ("s2", "i32"),
        ("p0", "i32"),
        ("p1", "i32"),
        ("p2", "i32"),
        ("d0", "i32"),
        ("d1", "i32"),
        ("d2", "i32"),
        ("n_channels", "i32"),
        ("n_batch", "i32"),
        ("n_channels_out", "i32"),
    ),
    "pool_1d": (
        ("a", "tensor"),
        ("op", "enum ggml_op_pool"),
        ("k0", "i32"),
        ("s0", "i32"),
        ("p0", "i32"),
    ),
    "pool_2d": (
        ("a", "tensor"),
        ("op", "enum ggml_op_pool"),
        ("k0", "i32"),
        ("k1", "i32"),
        ("s0", "i32"),
        ("s1", "i32"),
        ("p0", "f32"),
        ("p1", "f32"),
    ),
    "pool_2d_back": (
        ("a", "tensor"),
        ("af", "tensor"),
        ("op", "enum ggml_op_pool"),
        ("k0", "i32"),
        ("k1", "i32"),
        ("s0", "i32"),
        ("s1", "i32"),
        ("p0", "f32"),
        ("p1", "f32"),
    ),
    "upscale": (("a", "tensor"), ("scale_factor", "i32"), ("mode", "enum ggml_scale_mode")),
    "interpolate": (
        ("a", "tensor"),
        ("ne0", "i64"),
        ("ne1", "i64"),
        ("ne2", "i64"),
        ("ne3", "i64"),
        ("mode", "enum ggml_scale_mode"),
    ),
    "pad": (("a", "tensor"), ("p0", "i32"), ("p1", "i32"), ("p2", "i32"), ("p3", "i32")),
    "pad_circular": (("a", "tensor"), ("p0", "i32"), ("p1", "i32"), ("p2", "i32"), ("p3", "i32")),
    "pad_ext": (
        ("a", "tensor"),
        ("lp0", "i32"),
        ("rp0", "i32"),
        ("lp1", "i32"),
        ("rp1", "i32"),
        ("lp2", "i32"),
        ("rp2", "i32"),
        ("lp3", "i32"),
        ("rp3", "i32"),
    ),
    "pad_ext_circular": (
        ("a", "tensor"),
        ("lp0", "i32"),
        ("rp0", "i32"),
        ("lp1", "i32"),
        ("rp1", "i32"),
        ("lp2", "i32"),
        ("rp2", "i32"),
        ("lp3", "i32"),
        ("rp3", "i32"),
    ),
    "pad_reflect_1d": (("a", "tensor"), ("p0", "i32"), ("p1", "i32")),
    "roll": (
        ("a", "tensor"),
        ("shift0", "i32"),
        ("shift1", "i32"),
        ("shift2", "i32"),
        ("shift3", "i32"),
    ),
    "tri": (("a", "tensor"), ("type", "enum ggml_tri_type")),
    "fill": (("a", "tensor"), ("c", "f32")),
    "fill_inplace": (("a", "tensor"), ("c", "f32")),
    "timestep_embedding": (("timesteps", "tensor"), ("dim", "i32"), ("max_period", "i32")),
    "argsort": (("a", "tensor"), ("order", "enum ggml_sort_order")),
    "argsort_top_k": (("a", "tensor"), ("k", "i32")),
    "top_k": (("a", "tensor"), ("k", "i32")),
    "arange": (("start", "f32"), ("stop", "f32"), ("step", "f32")),
    "flash_attn_ext": (
        ("q", "tensor"),
        ("k", "tensor"),
        ("v", "tensor"),
        ("mask", "tensor?"),
        ("scale", "f32"),
        ("max_bias", "f32"),
        ("logit_softcap", "f32"),
    ),
    "ssm_conv": (("sx", "tensor"), ("c", "tensor")),
    "ssm_scan": (
        ("s", "tensor"),
        ("x", "tensor"),
        ("dt", "tensor"),
        ("A", "tensor"),
        ("B", "tensor"),
        ("C", "tensor"),
        ("ids", "tensor"),
        ("K", "i64"),
    ),
    "win_part": (("a", "tensor"), ("w", "i32")),
    "win_unpart": (("a", "tensor"), ("w0", "i32"), ("h0", "i32"), ("w", "i32")),
    "unary": (("a", "tensor"), ("op", "enum ggml_unary_op")),
    "unary_inplace": (("a", "tensor"), ("op", "enum ggml_unary_op")),
    "get_rel_pos": (("a", "tensor"), ("qh", "i32"), ("kh", "i32")),
    "add_rel_pos": (("a", "tensor"), ("pw", "tensor"), ("ph", "tensor")),
    "add_rel_pos_inplace": (("a", "tensor"), ("pw", "tensor"), ("ph", "tensor")),
    "rwkv_wkv6": (
        ("k", "tensor"),
        ("v", "tensor"),
        ("r", "tensor"),
        ("tf", "tensor"),
        ("td", "tensor"),
        ("state", "tensor"),
    ),
    "gated_linear_attn": (
        ("k", "tensor"),
        ("v", "tensor"),
        ("q", "tensor"),
        ("g", "tensor"),
        ("state", "tensor"),
        ("scale", "f32"),
    ),
    "rwkv_wkv7": (
        ("r", "tensor"),
        ("w", "tensor"),
        ("k", "tensor"),
        ("v", "tensor"),
        ("a", "tensor"),
        ("b", "tensor"),
        ("state", "tensor"),
    ),
    "solve_tri": (
        ("a", "tensor"),
        ("b", "tensor"),
        ("left", "bool"),
        ("lower", "bool"),
        ("uni", "bool"),
    ),
    "gated_delta_net": (
        ("q", "tensor"),
        ("k", "tensor"),
        ("v", "tensor"),
        ("g", "tensor"),
        ("beta", "tensor"),
        ("state", "tensor"),
        ("K", "i64"),
    ),
    "lightning_indexer": (
        ("q", "tensor"),
        ("k", "tensor"),
        ("weights", "tensor"),
        ("mask", "tensor"),
    ),
    "dsv4_hc_comb": (
        ("mixes", "tensor"),
        ("scale", "tensor"),
        ("base", "tensor"),
        ("eps", "f32"),
        ("n_iter", "i32"),
    ),
    "dsv4_hc_pre": (("x", "tensor"), ("weights", "tensor")),
    "dsv4_hc_pre_gated": (("x", "tensor"), ("gate", "tensor"), ("scale", "f32")),
    "dsv4_hc_post": (
        ("x", "tensor"),
        ("residual", "tensor"),
        ("post", "tensor"),
        ("comb", "tensor?"),
    ),
    "cross_entropy_loss": (("a", "tensor"), ("b", "tensor")),
    "cross_entropy_loss_back": (("a", "tensor"), ("b", "tensor"), ("c", "tensor")),
    "opt_step_adamw": (
        ("a", "tensor"),
        ("grad", "tensor"),
        ("m", "tensor"),
        ("v", "tensor"),
        ("adamw_params", "tensor"),
    ),
    "opt_step_sgd": (("a", "tensor"), ("grad", "tensor"), ("sgd_params", "tensor")),
    "set_param": (("tensor", "tensor"),),
    "set_loss": (("tensor", "tensor"),),
    "prec_set_acc": (("a", "tensor"), ("prec", "enum ggml_prec")),
    "prec_set_src": (("a", "tensor"), ("prec", "enum ggml_prec"), ("idx", "i32")),
    "mul_mat_set_hint": (("a", "tensor"), ("hint", "enum ggml_op_hint")),
    "soft_max_add_sinks": (("a", "tensor"), ("sinks", "tensor?")),
    "rope_set_offset": (("a", "tensor"), ("n_offs", "i32")),
    "flash_attn_ext_add_sinks": (("a", "tensor"), ("sinks", "tensor?")),
    "flash_attn_ext_set_n_kv_max": (("a", "tensor"), ("n_kv_max", "i32")),
}

# enum -> Python's name of each value -> C's
ENUMS: dict[str, dict[str, str]] = {
    "GGML_ROPE_TYPE_": {
        "normal": "GGML_ROPE_TYPE_NORMAL",
        "neox": "GGML_ROPE_TYPE_NEOX",
        "mrope": "GGML_ROPE_TYPE_MROPE",
        "vision": "GGML_ROPE_TYPE_VISION",
        "imrope": "GGML_ROPE_TYPE_IMROPE",
    },
    "ggml_glu_op": {
        "reglu": "GGML_GLU_OP_REGLU",
        "geglu": "GGML_GLU_OP_GEGLU",
        "swiglu": "GGML_GLU_OP_SWIGLU",
        "swiglu_oai": "GGML_GLU_OP_SWIGLU_OAI",
        "geglu_erf": "GGML_GLU_OP_GEGLU_ERF",
        "geglu_quick": "GGML_GLU_OP_GEGLU_QUICK",
        "swiglu_clamp": "GGML_GLU_OP_SWIGLU_CLAMP",
    },
    "ggml_op_hint": {
        "none": "GGML_HINT_NONE",
        "src0_is_hadamard": "GGML_HINT_SRC0_IS_HADAMARD",
    },
    "ggml_op_pool": {
        "max": "GGML_OP_POOL_MAX",
        "avg": "GGML_OP_POOL_AVG",
    },
    "ggml_prec": {
        "undefined": "GGML_PREC_UNDEFINED",
        "default": "GGML_PREC_DEFAULT",
        "f32": "GGML_PREC_F32",
        "bf16": "GGML_PREC_BF16",
        "f16": "GGML_PREC_F16",
        "q8": "GGML_PREC_Q8",
        "q4": "GGML_PREC_Q4",
    },
    "ggml_scale_mode": {
        "nearest": "GGML_SCALE_MODE_NEAREST",
        "bilinear": "GGML_SCALE_MODE_BILINEAR",
        "bicubic": "GGML_SCALE_MODE_BICUBIC",
    },
    "ggml_sort_order": {
        "asc": "GGML_SORT_ORDER_ASC",
        "desc": "GGML_SORT_ORDER_DESC",
    },
    "ggml_tri_type": {
        "upper_diag": "GGML_TRI_TYPE_UPPER_DIAG",
        "upper": "GGML_TRI_TYPE_UPPER",
        "lower_diag": "GGML_TRI_TYPE_LOWER_DIAG",
        "lower": "GGML_TRI_TYPE_LOWER",
    },
    "ggml_unary_op": {
        "abs": "GGML_UNARY_OP_ABS",
        "sgn": "GGML_UNARY_OP_SGN",
        "neg": "GGML_UNARY_OP_NEG",
        "step": "GGML_UNARY_OP_STEP",
        "tanh": "GGML_UNARY_OP_TANH",
        "elu": "GGML_UNARY_OP_ELU",
        "relu": "GGML_UNARY_OP_RELU",
        "sigmoid": "GGML_UNARY_OP_SIGMOID",
        "gelu": "GGML_UNARY_OP_GELU",
        "gelu_quick": "GGML_UNARY_OP_GELU_QUICK",
        "silu": "GGML_UNARY_OP_SILU",
        "hardswish": "GGML_UNARY_OP_HARDSWISH",
        "hardsigmoid": "GGML_UNARY_OP_HARDSIGMOID",
        "exp": "GGML_UNARY_OP_EXP",
        "expm1": "GGML_UNARY_OP_EXPM1",
        "softplus": "GGML_UNARY_OP_SOFTPLUS",
        "gelu_erf": "GGML_UNARY_OP_GELU_ERF",
        "xielu": "GGML_UNARY_OP_XIELU",
        "floor": "GGML_UNARY_OP_FLOOR",
        "ceil": "GGML_UNARY_OP_CEIL",
        "round": "GGML_UNARY_OP_ROUND",
        "trunc": "GGML_UNARY_OP_TRUNC",
    },
}

# tensor-building functions of ggml.h that are no methods, and why
OMITTED: dict[str, str] = {
    "ggml_new_tensor": "Graph.input, Store.array and Store.zeros make tensors that own memory",
    "ggml_new_tensor_1d": "see new_tensor",
    "ggml_new_tensor_2d": "see new_tensor",
    "ggml_new_tensor_3d": "see new_tensor",
    "ggml_new_tensor_4d": "see new_tensor",
    "ggml_dup_tensor": "makes a tensor that nothing computes",
    "ggml_view_tensor": "makes a view without an operation; use view_1d .. view_4d",
    "ggml_get_tensor": "a look-up, not an operation",
    "ggml_add1": "deprecated in ggml.h",
    "ggml_add1_inplace": "deprecated in ggml.h",
    "ggml_rope_custom": "deprecated in ggml.h",
    "ggml_rope_custom_inplace": "deprecated in ggml.h",
    "ggml_upscale_ext": "deprecated in ggml.h",
    "ggml_flash_attn_back": "ggml 0.25.3 aborts on every call",
    "ggml_map_custom1": "computes with a C callback, which Python cannot give safely",
    "ggml_map_custom1_inplace": "computes with a C callback, which Python cannot give safely",
    "ggml_map_custom2": "computes with a C callback, which Python cannot give safely",
    "ggml_map_custom2_inplace": "computes with a C callback, which Python cannot give safely",
    "ggml_map_custom3": "computes with a C callback, which Python cannot give safely",
    "ggml_map_custom3_inplace": "computes with a C callback, which Python cannot give safely",
    "ggml_custom_4d": "computes with a C callback, which Python cannot give safely",
    "ggml_custom_inplace": "computes with a C callback, which Python cannot give safely",
}


class Ops:
    """One method for each tensor-building function of ggml.h."""

    def _build(self, name: str, *args: Any) -> Tensor:
        raise NotImplementedError

    def _modify(self, name: str, *args: Any) -> Tensor:
        raise NotImplementedError

    def dup(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_dup(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("dup", a)

    def dup_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_dup_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("dup_inplace", a)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_add(struct ggml_context *ctx, struct ggml_tensor *a,
        struct ggml_tensor *b)``.
        """
        return self._build("add", a, b)

    def add_inplace(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_add_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b)``.
        """
        return self._build("add_inplace", a, b)

    def add_cast(self, a: Tensor, b: Tensor, type: DTypeLike) -> Tensor:
        """C: ``struct ggml_tensor *ggml_add_cast(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, enum ggml_type type)``.
        """
        return self._build("add_cast", a, b, type)

    def add_id(self, a: Tensor, b: Tensor, ids: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_add_id(struct ggml_context *ctx, struct ggml_tensor *a,
        struct ggml_tensor *b, struct ggml_tensor *ids)``.
        """
        return self._build("add_id", a, b, ids)

    def acc(self, a: Tensor, b: Tensor, nb1: int, nb2: int, nb3: int, offset: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_acc(struct ggml_context *ctx, struct ggml_tensor *a,
        struct ggml_tensor *b, size_t nb1, size_t nb2, size_t nb3, size_t offset)``.
        """
        return self._build("acc", a, b, nb1, nb2, nb3, offset)

    def acc_inplace(
        self, a: Tensor, b: Tensor, nb1: int, nb2: int, nb3: int, offset: int
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_acc_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, size_t nb1, size_t nb2, size_t nb3,
        size_t offset)``.
        """
        return self._build("acc_inplace", a, b, nb1, nb2, nb3, offset)

    def sub(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_sub(struct ggml_context *ctx, struct ggml_tensor *a,
        struct ggml_tensor *b)``.
        """
        return self._build("sub", a, b)

    def sub_inplace(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_sub_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b)``.
        """
        return self._build("sub_inplace", a, b)

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_mul(struct ggml_context *ctx, struct ggml_tensor *a,
        struct ggml_tensor *b)``.
        """
        return self._build("mul", a, b)

    def mul_inplace(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_mul_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b)``.
        """
        return self._build("mul_inplace", a, b)

    def div(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_div(struct ggml_context *ctx, struct ggml_tensor *a,
        struct ggml_tensor *b)``.
        """
        return self._build("div", a, b)

    def div_inplace(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_div_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b)``.
        """
        return self._build("div_inplace", a, b)

    def sqr(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_sqr(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("sqr", a)

    def sqr_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_sqr_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("sqr_inplace", a)

    def sqrt(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_sqrt(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("sqrt", a)

    def sqrt_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_sqrt_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("sqrt_inplace", a)

    def log(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_log(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("log", a)

    def log_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_log_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("log_inplace", a)

    def expm1(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_expm1(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("expm1", a)

    def expm1_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_expm1_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("expm1_inplace", a)

    def softplus(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_softplus(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("softplus", a)

    def softplus_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_softplus_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("softplus_inplace", a)

    def sin(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_sin(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("sin", a)

    def sin_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_sin_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("sin_inplace", a)

    def cos(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_cos(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("cos", a)

    def cos_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_cos_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("cos_inplace", a)

    def sum(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_sum(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("sum", a)

    def sum_rows(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_sum_rows(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("sum_rows", a)

    def cumsum(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_cumsum(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("cumsum", a)

    def mean(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_mean(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("mean", a)

    def argmax(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_argmax(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("argmax", a)

    def count_equal(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_count_equal(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b)``.
        """
        return self._build("count_equal", a, b)

    def repeat(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_repeat(struct ggml_context *ctx, struct ggml_tensor *a,
        struct ggml_tensor *b)``.
        """
        return self._build("repeat", a, b)

    def repeat_4d(self, a: Tensor, ne0: int, ne1: int, ne2: int, ne3: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_repeat_4d(struct ggml_context *ctx,
        struct ggml_tensor *a, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3)``.
        """
        return self._build("repeat_4d", a, ne0, ne1, ne2, ne3)

    def repeat_back(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_repeat_back(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b)``.
        """
        return self._build("repeat_back", a, b)

    def concat(self, a: Tensor, b: Tensor, dim: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_concat(struct ggml_context *ctx, struct ggml_tensor *a,
        struct ggml_tensor *b, int dim)``.
        """
        return self._build("concat", a, b, dim)

    def abs(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_abs(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("abs", a)

    def abs_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_abs_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("abs_inplace", a)

    def sgn(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_sgn(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("sgn", a)

    def sgn_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_sgn_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("sgn_inplace", a)

    def neg(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_neg(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("neg", a)

    def neg_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_neg_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("neg_inplace", a)

    def step(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_step(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("step", a)

    def step_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_step_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("step_inplace", a)

    def tanh(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_tanh(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("tanh", a)

    def tanh_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_tanh_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("tanh_inplace", a)

    def elu(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_elu(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("elu", a)

    def elu_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_elu_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("elu_inplace", a)

    def relu(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_relu(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("relu", a)

    def leaky_relu(self, a: Tensor, negative_slope: float, inplace: bool) -> Tensor:
        """C: ``struct ggml_tensor *ggml_leaky_relu(struct ggml_context *ctx,
        struct ggml_tensor *a, float negative_slope, bool inplace)``.
        """
        return self._build("leaky_relu", a, negative_slope, inplace)

    def relu_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_relu_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("relu_inplace", a)

    def sigmoid(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_sigmoid(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("sigmoid", a)

    def sigmoid_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_sigmoid_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("sigmoid_inplace", a)

    def gelu(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_gelu(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("gelu", a)

    def gelu_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_gelu_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("gelu_inplace", a)

    def gelu_erf(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_gelu_erf(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("gelu_erf", a)

    def gelu_erf_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_gelu_erf_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("gelu_erf_inplace", a)

    def gelu_quick(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_gelu_quick(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("gelu_quick", a)

    def gelu_quick_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_gelu_quick_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("gelu_quick_inplace", a)

    def silu(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_silu(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("silu", a)

    def silu_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_silu_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("silu_inplace", a)

    def silu_back(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_silu_back(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b)``.
        """
        return self._build("silu_back", a, b)

    def hardswish(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_hardswish(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("hardswish", a)

    def hardsigmoid(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_hardsigmoid(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("hardsigmoid", a)

    def exp(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_exp(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("exp", a)

    def exp_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_exp_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("exp_inplace", a)

    def floor(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_floor(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("floor", a)

    def floor_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_floor_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("floor_inplace", a)

    def ceil(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_ceil(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("ceil", a)

    def ceil_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_ceil_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("ceil_inplace", a)

    def round(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_round(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("round", a)

    def round_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_round_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("round_inplace", a)

    def trunc(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_trunc(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("trunc", a)

    def trunc_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_trunc_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("trunc_inplace", a)

    def xielu(self, a: Tensor, alpha_n: float, alpha_p: float, beta: float, eps: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_xielu(struct ggml_context *ctx, struct ggml_tensor *a,
        float alpha_n, float alpha_p, float beta, float eps)``.
        """
        return self._build("xielu", a, alpha_n, alpha_p, beta, eps)

    def glu(self, a: Tensor, op: str | int, swapped: bool) -> Tensor:
        """C: ``struct ggml_tensor *ggml_glu(struct ggml_context *ctx, struct ggml_tensor *a,
        enum ggml_glu_op op, bool swapped)``.
        """
        return self._build("glu", a, op, swapped)

    def reglu(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_reglu(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("reglu", a)

    def reglu_swapped(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_reglu_swapped(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("reglu_swapped", a)

    def geglu(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_geglu(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("geglu", a)

    def geglu_swapped(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_geglu_swapped(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("geglu_swapped", a)

    def swiglu(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_swiglu(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("swiglu", a)

    def swiglu_swapped(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_swiglu_swapped(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("swiglu_swapped", a)

    def geglu_erf(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_geglu_erf(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("geglu_erf", a)

    def geglu_erf_swapped(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_geglu_erf_swapped(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("geglu_erf_swapped", a)

    def geglu_quick(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_geglu_quick(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("geglu_quick", a)

    def geglu_quick_swapped(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_geglu_quick_swapped(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("geglu_quick_swapped", a)

    def glu_split(self, a: Tensor, b: Tensor, op: str | int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_glu_split(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, enum ggml_glu_op op)``.
        """
        return self._build("glu_split", a, b, op)

    def reglu_split(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_reglu_split(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b)``.
        """
        return self._build("reglu_split", a, b)

    def geglu_split(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_geglu_split(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b)``.
        """
        return self._build("geglu_split", a, b)

    def swiglu_split(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_swiglu_split(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b)``.
        """
        return self._build("swiglu_split", a, b)

    def geglu_erf_split(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_geglu_erf_split(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b)``.
        """
        return self._build("geglu_erf_split", a, b)

    def geglu_quick_split(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_geglu_quick_split(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b)``.
        """
        return self._build("geglu_quick_split", a, b)

    def swiglu_oai(self, a: Tensor, b: Tensor, alpha: float, limit: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_swiglu_oai(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, float alpha, float limit)``.
        """
        return self._build("swiglu_oai", a, b, alpha, limit)

    def swiglu_clamp(self, a: Tensor, b: Tensor, limit: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_swiglu_clamp(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, float limit)``.
        """
        return self._build("swiglu_clamp", a, b, limit)

    def norm(self, a: Tensor, eps: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_norm(struct ggml_context *ctx, struct ggml_tensor *a,
        float eps)``.
        """
        return self._build("norm", a, eps)

    def norm_inplace(self, a: Tensor, eps: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_norm_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, float eps)``.
        """
        return self._build("norm_inplace", a, eps)

    def rms_norm(self, a: Tensor, eps: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_rms_norm(struct ggml_context *ctx,
        struct ggml_tensor *a, float eps)``.
        """
        return self._build("rms_norm", a, eps)

    def rms_norm_inplace(self, a: Tensor, eps: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_rms_norm_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, float eps)``.
        """
        return self._build("rms_norm_inplace", a, eps)

    def group_norm(self, a: Tensor, n_groups: int, eps: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_group_norm(struct ggml_context *ctx,
        struct ggml_tensor *a, int n_groups, float eps)``.
        """
        return self._build("group_norm", a, n_groups, eps)

    def group_norm_inplace(self, a: Tensor, n_groups: int, eps: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_group_norm_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, int n_groups, float eps)``.
        """
        return self._build("group_norm_inplace", a, n_groups, eps)

    def l2_norm(self, a: Tensor, eps: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_l2_norm(struct ggml_context *ctx,
        struct ggml_tensor *a, float eps)``.
        """
        return self._build("l2_norm", a, eps)

    def l2_norm_inplace(self, a: Tensor, eps: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_l2_norm_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, float eps)``.
        """
        return self._build("l2_norm_inplace", a, eps)

    def rms_norm_back(self, a: Tensor, b: Tensor, eps: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_rms_norm_back(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, float eps)``.
        """
        return self._build("rms_norm_back", a, b, eps)

    def mul_mat(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_mul_mat(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b)``.
        """
        return self._build("mul_mat", a, b)

    def mul_mat_id(self, as_: Tensor, b: Tensor, ids: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_mul_mat_id(struct ggml_context *ctx,
        struct ggml_tensor *as, struct ggml_tensor *b, struct ggml_tensor *ids)``.
        """
        return self._build("mul_mat_id", as_, b, ids)

    def out_prod(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_out_prod(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b)``.
        """
        return self._build("out_prod", a, b)

    def scale(self, a: Tensor, s: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_scale(struct ggml_context *ctx, struct ggml_tensor *a,
        float s)``.
        """
        return self._build("scale", a, s)

    def scale_inplace(self, a: Tensor, s: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_scale_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, float s)``.
        """
        return self._build("scale_inplace", a, s)

    def scale_bias(self, a: Tensor, s: float, b: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_scale_bias(struct ggml_context *ctx,
        struct ggml_tensor *a, float s, float b)``.
        """
        return self._build("scale_bias", a, s, b)

    def scale_bias_inplace(self, a: Tensor, s: float, b: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_scale_bias_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, float s, float b)``.
        """
        return self._build("scale_bias_inplace", a, s, b)

    def set(self, a: Tensor, b: Tensor, nb1: int, nb2: int, nb3: int, offset: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_set(struct ggml_context *ctx, struct ggml_tensor *a,
        struct ggml_tensor *b, size_t nb1, size_t nb2, size_t nb3, size_t offset)``.
        """
        return self._build("set", a, b, nb1, nb2, nb3, offset)

    def set_inplace(
        self, a: Tensor, b: Tensor, nb1: int, nb2: int, nb3: int, offset: int
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_set_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, size_t nb1, size_t nb2, size_t nb3,
        size_t offset)``.
        """
        return self._build("set_inplace", a, b, nb1, nb2, nb3, offset)

    def set_1d(self, a: Tensor, b: Tensor, offset: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_set_1d(struct ggml_context *ctx, struct ggml_tensor *a,
        struct ggml_tensor *b, size_t offset)``.
        """
        return self._build("set_1d", a, b, offset)

    def set_1d_inplace(self, a: Tensor, b: Tensor, offset: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_set_1d_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, size_t offset)``.
        """
        return self._build("set_1d_inplace", a, b, offset)

    def set_2d(self, a: Tensor, b: Tensor, nb1: int, offset: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_set_2d(struct ggml_context *ctx, struct ggml_tensor *a,
        struct ggml_tensor *b, size_t nb1, size_t offset)``.
        """
        return self._build("set_2d", a, b, nb1, offset)

    def set_2d_inplace(self, a: Tensor, b: Tensor, nb1: int, offset: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_set_2d_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, size_t nb1, size_t offset)``.
        """
        return self._build("set_2d_inplace", a, b, nb1, offset)

    def cpy(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_cpy(struct ggml_context *ctx, struct ggml_tensor *a,
        struct ggml_tensor *b)``.
        """
        return self._build("cpy", a, b)

    def cast(self, a: Tensor, type: DTypeLike) -> Tensor:
        """C: ``struct ggml_tensor *ggml_cast(struct ggml_context *ctx, struct ggml_tensor *a,
        enum ggml_type type)``.
        """
        return self._build("cast", a, type)

    def cont(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_cont(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("cont", a)

    def cont_1d(self, a: Tensor, ne0: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_cont_1d(struct ggml_context *ctx,
        struct ggml_tensor *a, int64_t ne0)``.
        """
        return self._build("cont_1d", a, ne0)

    def cont_2d(self, a: Tensor, ne0: int, ne1: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_cont_2d(struct ggml_context *ctx,
        struct ggml_tensor *a, int64_t ne0, int64_t ne1)``.
        """
        return self._build("cont_2d", a, ne0, ne1)

    def cont_3d(self, a: Tensor, ne0: int, ne1: int, ne2: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_cont_3d(struct ggml_context *ctx,
        struct ggml_tensor *a, int64_t ne0, int64_t ne1, int64_t ne2)``.
        """
        return self._build("cont_3d", a, ne0, ne1, ne2)

    def cont_4d(self, a: Tensor, ne0: int, ne1: int, ne2: int, ne3: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_cont_4d(struct ggml_context *ctx,
        struct ggml_tensor *a, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3)``.
        """
        return self._build("cont_4d", a, ne0, ne1, ne2, ne3)

    def reshape(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_reshape(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b)``.
        """
        return self._build("reshape", a, b)

    def reshape_1d(self, a: Tensor, ne0: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_reshape_1d(struct ggml_context *ctx,
        struct ggml_tensor *a, int64_t ne0)``.
        """
        return self._build("reshape_1d", a, ne0)

    def reshape_2d(self, a: Tensor, ne0: int, ne1: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_reshape_2d(struct ggml_context *ctx,
        struct ggml_tensor *a, int64_t ne0, int64_t ne1)``.
        """
        return self._build("reshape_2d", a, ne0, ne1)

    def reshape_3d(self, a: Tensor, ne0: int, ne1: int, ne2: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_reshape_3d(struct ggml_context *ctx,
        struct ggml_tensor *a, int64_t ne0, int64_t ne1, int64_t ne2)``.
        """
        return self._build("reshape_3d", a, ne0, ne1, ne2)

    def reshape_4d(self, a: Tensor, ne0: int, ne1: int, ne2: int, ne3: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_reshape_4d(struct ggml_context *ctx,
        struct ggml_tensor *a, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3)``.
        """
        return self._build("reshape_4d", a, ne0, ne1, ne2, ne3)

    def view_1d(self, a: Tensor, ne0: int, offset: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_view_1d(struct ggml_context *ctx,
        struct ggml_tensor *a, int64_t ne0, size_t offset)``.
        """
        return self._build("view_1d", a, ne0, offset)

    def view_2d(self, a: Tensor, ne0: int, ne1: int, nb1: int, offset: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_view_2d(struct ggml_context *ctx,
        struct ggml_tensor *a, int64_t ne0, int64_t ne1, size_t nb1, size_t offset)``.
        """
        return self._build("view_2d", a, ne0, ne1, nb1, offset)

    def view_3d(
        self, a: Tensor, ne0: int, ne1: int, ne2: int, nb1: int, nb2: int, offset: int
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_view_3d(struct ggml_context *ctx,
        struct ggml_tensor *a, int64_t ne0, int64_t ne1, int64_t ne2, size_t nb1, size_t nb2,
        size_t offset)``.
        """
        return self._build("view_3d", a, ne0, ne1, ne2, nb1, nb2, offset)

    def view_4d(
        self,
        a: Tensor,
        ne0: int,
        ne1: int,
        ne2: int,
        ne3: int,
        nb1: int,
        nb2: int,
        nb3: int,
        offset: int,
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_view_4d(struct ggml_context *ctx,
        struct ggml_tensor *a, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3,
        size_t nb1, size_t nb2, size_t nb3, size_t offset)``.
        """
        return self._build("view_4d", a, ne0, ne1, ne2, ne3, nb1, nb2, nb3, offset)

    def permute(self, a: Tensor, axis0: int, axis1: int, axis2: int, axis3: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_permute(struct ggml_context *ctx,
        struct ggml_tensor *a, int axis0, int axis1, int axis2, int axis3)``.
        """
        return self._build("permute", a, axis0, axis1, axis2, axis3)

    def transpose(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_transpose(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("transpose", a)

    def get_rows(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_get_rows(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b)``.
        """
        return self._build("get_rows", a, b)

    def get_rows_back(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_get_rows_back(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, struct ggml_tensor *c)``.
        """
        return self._build("get_rows_back", a, b, c)

    def set_rows(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_set_rows(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, struct ggml_tensor *c)``.
        """
        return self._build("set_rows", a, b, c)

    def diag(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_diag(struct ggml_context *ctx, struct ggml_tensor *a)``."""
        return self._build("diag", a)

    def diag_mask_inf(self, a: Tensor, n_past: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_diag_mask_inf(struct ggml_context *ctx,
        struct ggml_tensor *a, int n_past)``.
        """
        return self._build("diag_mask_inf", a, n_past)

    def diag_mask_inf_inplace(self, a: Tensor, n_past: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_diag_mask_inf_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, int n_past)``.
        """
        return self._build("diag_mask_inf_inplace", a, n_past)

    def diag_mask_zero(self, a: Tensor, n_past: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_diag_mask_zero(struct ggml_context *ctx,
        struct ggml_tensor *a, int n_past)``.
        """
        return self._build("diag_mask_zero", a, n_past)

    def diag_mask_zero_inplace(self, a: Tensor, n_past: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_diag_mask_zero_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, int n_past)``.
        """
        return self._build("diag_mask_zero_inplace", a, n_past)

    def clamp(self, a: Tensor, min: float, max: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_clamp(struct ggml_context *ctx, struct ggml_tensor *a,
        float min, float max)``.
        """
        return self._build("clamp", a, min, max)

    def clamp_inplace(self, a: Tensor, min: float, max: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_clamp_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, float min, float max)``.
        """
        return self._build("clamp_inplace", a, min, max)

    def soft_max(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_soft_max(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("soft_max", a)

    def soft_max_inplace(self, a: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_soft_max_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a)``.
        """
        return self._build("soft_max_inplace", a)

    def soft_max_ext(self, a: Tensor, mask: Tensor | None, scale: float, max_bias: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_soft_max_ext(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *mask, float scale, float max_bias)``.
        """
        return self._build("soft_max_ext", a, mask, scale, max_bias)

    def soft_max_ext_inplace(
        self, a: Tensor, mask: Tensor | None, scale: float, max_bias: float
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_soft_max_ext_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *mask, float scale, float max_bias)``.
        """
        return self._build("soft_max_ext_inplace", a, mask, scale, max_bias)

    def soft_max_ext_back(self, a: Tensor, b: Tensor, scale: float, max_bias: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_soft_max_ext_back(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, float scale, float max_bias)``.
        """
        return self._build("soft_max_ext_back", a, b, scale, max_bias)

    def soft_max_ext_back_inplace(
        self, a: Tensor, b: Tensor, scale: float, max_bias: float
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_soft_max_ext_back_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, float scale, float max_bias)``.
        """
        return self._build("soft_max_ext_back_inplace", a, b, scale, max_bias)

    def rope(self, a: Tensor, b: Tensor, n_dims: int, mode: str | int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_rope(struct ggml_context *ctx, struct ggml_tensor *a,
        struct ggml_tensor *b, int n_dims, int mode)``.
        """
        return self._build("rope", a, b, n_dims, mode)

    def rope_inplace(self, a: Tensor, b: Tensor, n_dims: int, mode: str | int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_rope_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, int n_dims, int mode)``.
        """
        return self._build("rope_inplace", a, b, n_dims, mode)

    def rope_ext(
        self,
        a: Tensor,
        b: Tensor,
        c: Tensor | None,
        n_dims: int,
        mode: str | int,
        n_ctx_orig: int,
        freq_base: float,
        freq_scale: float,
        ext_factor: float,
        attn_factor: float,
        beta_fast: float,
        beta_slow: float,
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_rope_ext(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, struct ggml_tensor *c, int n_dims,
        int mode, int n_ctx_orig, float freq_base, float freq_scale, float ext_factor,
        float attn_factor, float beta_fast, float beta_slow)``.
        """
        return self._build(
            "rope_ext",
            a,
            b,
            c,
            n_dims,
            mode,
            n_ctx_orig,
            freq_base,
            freq_scale,
            ext_factor,
            attn_factor,
            beta_fast,
            beta_slow,
        )

    def rope_multi(
        self,
        a: Tensor,
        b: Tensor,
        c: Tensor | None,
        n_dims: int,
        sections: Sequence[int],
        mode: str | int,
        n_ctx_orig: int,
        freq_base: float,
        freq_scale: float,
        ext_factor: float,
        attn_factor: float,
        beta_fast: float,
        beta_slow: float,
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_rope_multi(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, struct ggml_tensor *c, int n_dims,
        int sections[GGML_MROPE_SECTIONS], int mode, int n_ctx_orig, float freq_base,
        float freq_scale, float ext_factor, float attn_factor, float beta_fast,
        float beta_slow)``.
        """
        return self._build(
            "rope_multi",
            a,
            b,
            c,
            n_dims,
            sections,
            mode,
            n_ctx_orig,
            freq_base,
            freq_scale,
            ext_factor,
            attn_factor,
            beta_fast,
            beta_slow,
        )

    def rope_ext_inplace(
        self,
        a: Tensor,
        b: Tensor,
        c: Tensor | None,
        n_dims: int,
        mode: str | int,
        n_ctx_orig: int,
        freq_base: float,
        freq_scale: float,
        ext_factor: float,
        attn_factor: float,
        beta_fast: float,
        beta_slow: float,
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_rope_ext_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, struct ggml_tensor *c, int n_dims,
        int mode, int n_ctx_orig, float freq_base, float freq_scale, float ext_factor,
        float attn_factor, float beta_fast, float beta_slow)``.
        """
        return self._build(
            "rope_ext_inplace",
            a,
            b,
            c,
            n_dims,
            mode,
            n_ctx_orig,
            freq_base,
            freq_scale,
            ext_factor,
            attn_factor,
            beta_fast,
            beta_slow,
        )

    def rope_multi_inplace(
        self,
        a: Tensor,
        b: Tensor,
        c: Tensor | None,
        n_dims: int,
        sections: Sequence[int],
        mode: str | int,
        n_ctx_orig: int,
        freq_base: float,
        freq_scale: float,
        ext_factor: float,
        attn_factor: float,
        beta_fast: float,
        beta_slow: float,
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_rope_multi_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, struct ggml_tensor *c, int n_dims,
        int sections[GGML_MROPE_SECTIONS], int mode, int n_ctx_orig, float freq_base,
        float freq_scale, float ext_factor, float attn_factor, float beta_fast,
        float beta_slow)``.
        """
        return self._build(
            "rope_multi_inplace",
            a,
            b,
            c,
            n_dims,
            sections,
            mode,
            n_ctx_orig,
            freq_base,
            freq_scale,
            ext_factor,
            attn_factor,
            beta_fast,
            beta_slow,
        )

    def rope_ext_back(
        self,
        a: Tensor,
        b: Tensor,
        c: Tensor | None,
        n_dims: int,
        mode: str | int,
        n_ctx_orig: int,
        freq_base: float,
        freq_scale: float,
        ext_factor: float,
        attn_factor: float,
        beta_fast: float,
        beta_slow: float,
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_rope_ext_back(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, struct ggml_tensor *c, int n_dims,
        int mode, int n_ctx_orig, float freq_base, float freq_scale, float ext_factor,
        float attn_factor, float beta_fast, float beta_slow)``.
        """
        return self._build(
            "rope_ext_back",
            a,
            b,
            c,
            n_dims,
            mode,
            n_ctx_orig,
            freq_base,
            freq_scale,
            ext_factor,
            attn_factor,
            beta_fast,
            beta_slow,
        )

    def rope_multi_back(
        self,
        a: Tensor,
        b: Tensor,
        c: Tensor | None,
        n_dims: int,
        sections: Sequence[int],
        mode: str | int,
        n_ctx_orig: int,
        freq_base: float,
        freq_scale: float,
        ext_factor: float,
        attn_factor: float,
        beta_fast: float,
        beta_slow: float,
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_rope_multi_back(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, struct ggml_tensor *c, int n_dims,
        int sections[4], int mode, int n_ctx_orig, float freq_base, float freq_scale,
        float ext_factor, float attn_factor, float beta_fast, float beta_slow)``.
        """
        return self._build(
            "rope_multi_back",
            a,
            b,
            c,
            n_dims,
            sections,
            mode,
            n_ctx_orig,
            freq_base,
            freq_scale,
            ext_factor,
            attn_factor,
            beta_fast,
            beta_slow,
        )

    def im2col(
        self,
        a: Tensor,
        b: Tensor,
        s0: int,
        s1: int,
        p0: int,
        p1: int,
        d0: int,
        d1: int,
        is_2D: bool,
        dst_type: DTypeLike,
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_im2col(struct ggml_context *ctx, struct ggml_tensor *a,
        struct ggml_tensor *b, int s0, int s1, int p0, int p1, int d0, int d1, bool is_2D,
        enum ggml_type dst_type)``.
        """
        return self._build("im2col", a, b, s0, s1, p0, p1, d0, d1, is_2D, dst_type)

    def im2col_back(
        self,
        a: Tensor,
        b: Tensor,
        ne: Sequence[int],
        s0: int,
        s1: int,
        p0: int,
        p1: int,
        d0: int,
        d1: int,
        is_2D: bool,
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_im2col_back(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, int64_t *ne, int s0, int s1, int p0,
        int p1, int d0, int d1, bool is_2D)``.
        """
        return self._build("im2col_back", a, b, ne, s0, s1, p0, p1, d0, d1, is_2D)

    def col2im_1d(self, a: Tensor, s0: int, oc: int, p0: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_col2im_1d(struct ggml_context *ctx,
        struct ggml_tensor *a, int s0, int oc, int p0)``.
        """
        return self._build("col2im_1d", a, s0, oc, p0)

    def conv_1d(self, a: Tensor, b: Tensor, s0: int, p0: int, d0: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_conv_1d(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, int s0, int p0, int d0)``.
        """
        return self._build("conv_1d", a, b, s0, p0, d0)

    def conv_1d_ph(self, a: Tensor, b: Tensor, s: int, d: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_conv_1d_ph(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, int s, int d)``.
        """
        return self._build("conv_1d_ph", a, b, s, d)

    def conv_1d_dw(self, a: Tensor, b: Tensor, s0: int, p0: int, d0: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_conv_1d_dw(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, int s0, int p0, int d0)``.
        """
        return self._build("conv_1d_dw", a, b, s0, p0, d0)

    def conv_1d_dw_ph(self, a: Tensor, b: Tensor, s0: int, d0: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_conv_1d_dw_ph(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, int s0, int d0)``.
        """
        return self._build("conv_1d_dw_ph", a, b, s0, d0)

    def conv_transpose_1d(self, a: Tensor, b: Tensor, s0: int, p0: int, d0: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_conv_transpose_1d(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, int s0, int p0, int d0)``.
        """
        return self._build("conv_transpose_1d", a, b, s0, p0, d0)

    def conv_2d(
        self, a: Tensor, b: Tensor, s0: int, s1: int, p0: int, p1: int, d0: int, d1: int
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_conv_2d(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, int s0, int s1, int p0, int p1, int d0,
        int d1)``.
        """
        return self._build("conv_2d", a, b, s0, s1, p0, p1, d0, d1)

    def im2col_3d(
        self,
        a: Tensor,
        b: Tensor,
        IC: int,
        s0: int,
        s1: int,
        s2: int,
        p0: int,
        p1: int,
        p2: int,
        d0: int,
        d1: int,
        d2: int,
        dst_type: DTypeLike,
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_im2col_3d(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, int64_t IC, int s0, int s1, int s2,
        int p0, int p1, int p2, int d0, int d1, int d2, enum ggml_type dst_type)``.
        """
        return self._build("im2col_3d", a, b, IC, s0, s1, s2, p0, p1, p2, d0, d1, d2, dst_type)

    def conv_3d(
        self,
        a: Tensor,
        b: Tensor,
        IC: int,
        s0: int,
        s1: int,
        s2: int,
        p0: int,
        p1: int,
        p2: int,
        d0: int,
        d1: int,
        d2: int,
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_conv_3d(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, int64_t IC, int s0, int s1, int s2,
        int p0, int p1, int p2, int d0, int d1, int d2)``.
        """
        return self._build("conv_3d", a, b, IC, s0, s1, s2, p0, p1, p2, d0, d1, d2)

    def conv_2d_sk_p0(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_conv_2d_sk_p0(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b)``.
        """
        return self._build("conv_2d_sk_p0", a, b)

    def conv_2d_s1_ph(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_conv_2d_s1_ph(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b)``.
        """
        return self._build("conv_2d_s1_ph", a, b)

    def conv_2d_dw(
        self, a: Tensor, b: Tensor, s0: int, s1: int, p0: int, p1: int, d0: int, d1: int
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_conv_2d_dw(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, int s0, int s1, int p0, int p1, int d0,
        int d1)``.
        """
        return self._build("conv_2d_dw", a, b, s0, s1, p0, p1, d0, d1)

    def conv_2d_dw_direct(
        self,
        a: Tensor,
        b: Tensor,
        stride0: int,
        stride1: int,
        pad0: int,
        pad1: int,
        dilation0: int,
        dilation1: int,
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_conv_2d_dw_direct(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, int stride0, int stride1, int pad0,
        int pad1, int dilation0, int dilation1)``.
        """
        return self._build(
            "conv_2d_dw_direct", a, b, stride0, stride1, pad0, pad1, dilation0, dilation1
        )

    def conv_transpose_2d_p0(self, a: Tensor, b: Tensor, stride: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_conv_transpose_2d_p0(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, int stride)``.
        """
        return self._build("conv_transpose_2d_p0", a, b, stride)

    def conv_2d_direct(
        self, a: Tensor, b: Tensor, s0: int, s1: int, p0: int, p1: int, d0: int, d1: int
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_conv_2d_direct(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, int s0, int s1, int p0, int p1, int d0,
        int d1)``.
        """
        return self._build("conv_2d_direct", a, b, s0, s1, p0, p1, d0, d1)

    def conv_3d_direct(
        self,
        a: Tensor,
        b: Tensor,
        s0: int,
        s1: int,
        s2: int,
        p0: int,
        p1: int,
        p2: int,
        d0: int,
        d1: int,
        d2: int,
        n_channels: int,
        n_batch: int,
        n_channels_out: int,
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_conv_3d_direct(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, int s0, int s1, int s2, int p0, int p1,
        int p2, int d0, int d1, int d2, int n_channels, int n_batch, int n_channels_out)``.
        """
        return self._build(
            "conv_3d_direct",
            a,
            b,
            s0,
            s1,
            s2,
            p0,
            p1,
            p2,
            d0,
            d1,
            d2,
            n_channels,
            n_batch,
            n_channels_out,
        )

    def pool_1d(self, a: Tensor, op: str | int, k0: int, s0: int, p0: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_pool_1d(struct ggml_context *ctx,
        struct ggml_tensor *a, enum ggml_op_pool op, int k0, int s0, int p0)``.
        """
        return self._build("pool_1d", a, op, k0, s0, p0)

    def pool_2d(
        self, a: Tensor, op: str | int, k0: int, k1: int, s0: int, s1: int, p0: float, p1: float
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_pool_2d(struct ggml_context *ctx,
        struct ggml_tensor *a, enum ggml_op_pool op, int k0, int k1, int s0, int s1,
        float p0, float p1)``.
        """
        return self._build("pool_2d", a, op, k0, k1, s0, s1, p0, p1)

    def pool_2d_back(
        self,
        a: Tensor,
        af: Tensor,
        op: str | int,
        k0: int,
        k1: int,
        s0: int,
        s1: int,
        p0: float,
        p1: float,
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_pool_2d_back(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *af, enum ggml_op_pool op, int k0, int k1,
        int s0, int s1, float p0, float p1)``.
        """
        return self._build("pool_2d_back", a, af, op, k0, k1, s0, s1, p0, p1)

    def upscale(self, a: Tensor, scale_factor: int, mode: str | int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_upscale(struct ggml_context *ctx,
        struct ggml_tensor *a, int scale_factor, enum ggml_scale_mode mode)``.
        """
        return self._build("upscale", a, scale_factor, mode)

    def interpolate(
        self, a: Tensor, ne0: int, ne1: int, ne2: int, ne3: int, mode: str | int
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_interpolate(struct ggml_context *ctx,
        struct ggml_tensor *a, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3,
        uint32_t mode)``.
        """
        return self._build("interpolate", a, ne0, ne1, ne2, ne3, mode)

    def pad(self, a: Tensor, p0: int, p1: int, p2: int, p3: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_pad(struct ggml_context *ctx, struct ggml_tensor *a,
        int p0, int p1, int p2, int p3)``.
        """
        return self._build("pad", a, p0, p1, p2, p3)

    def pad_circular(self, a: Tensor, p0: int, p1: int, p2: int, p3: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_pad_circular(struct ggml_context *ctx,
        struct ggml_tensor *a, int p0, int p1, int p2, int p3)``.
        """
        return self._build("pad_circular", a, p0, p1, p2, p3)

    def pad_ext(
        self,
        a: Tensor,
        lp0: int,
        rp0: int,
        lp1: int,
        rp1: int,
        lp2: int,
        rp2: int,
        lp3: int,
        rp3: int,
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_pad_ext(struct ggml_context *ctx,
        struct ggml_tensor *a, int lp0, int rp0, int lp1, int rp1, int lp2, int rp2, int lp3,
        int rp3)``.
        """
        return self._build("pad_ext", a, lp0, rp0, lp1, rp1, lp2, rp2, lp3, rp3)

    def pad_ext_circular(
        self,
        a: Tensor,
        lp0: int,
        rp0: int,
        lp1: int,
        rp1: int,
        lp2: int,
        rp2: int,
        lp3: int,
        rp3: int,
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_pad_ext_circular(struct ggml_context *ctx,
        struct ggml_tensor *a, int lp0, int rp0, int lp1, int rp1, int lp2, int rp2, int lp3,
        int rp3)``.
        """
        return self._build("pad_ext_circular", a, lp0, rp0, lp1, rp1, lp2, rp2, lp3, rp3)

    def pad_reflect_1d(self, a: Tensor, p0: int, p1: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_pad_reflect_1d(struct ggml_context *ctx,
        struct ggml_tensor *a, int p0, int p1)``.
        """
        return self._build("pad_reflect_1d", a, p0, p1)

    def roll(self, a: Tensor, shift0: int, shift1: int, shift2: int, shift3: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_roll(struct ggml_context *ctx, struct ggml_tensor *a,
        int shift0, int shift1, int shift2, int shift3)``.
        """
        return self._build("roll", a, shift0, shift1, shift2, shift3)

    def tri(self, a: Tensor, type: str | int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_tri(struct ggml_context *ctx, struct ggml_tensor *a,
        enum ggml_tri_type type)``.
        """
        return self._build("tri", a, type)

    def fill(self, a: Tensor, c: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_fill(struct ggml_context *ctx, struct ggml_tensor *a,
        float c)``.
        """
        return self._build("fill", a, c)

    def fill_inplace(self, a: Tensor, c: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_fill_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, float c)``.
        """
        return self._build("fill_inplace", a, c)

    def timestep_embedding(self, timesteps: Tensor, dim: int, max_period: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_timestep_embedding(struct ggml_context *ctx,
        struct ggml_tensor *timesteps, int dim, int max_period)``.
        """
        return self._build("timestep_embedding", timesteps, dim, max_period)

    def argsort(self, a: Tensor, order: str | int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_argsort(struct ggml_context *ctx,
        struct ggml_tensor *a, enum ggml_sort_order order)``.
        """
        return self._build("argsort", a, order)

    def argsort_top_k(self, a: Tensor, k: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_argsort_top_k(struct ggml_context *ctx,
        struct ggml_tensor *a, int k)``.
        """
        return self._build("argsort_top_k", a, k)

    def top_k(self, a: Tensor, k: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_top_k(struct ggml_context *ctx, struct ggml_tensor *a,
        int k)``.
        """
        return self._build("top_k", a, k)

    def arange(self, start: float, stop: float, step: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_arange(struct ggml_context *ctx, float start,
        float stop, float step)``.
        """
        return self._build("arange", start, stop, step)

    def flash_attn_ext(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        scale: float,
        max_bias: float,
        logit_softcap: float,
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_flash_attn_ext(struct ggml_context *ctx,
        struct ggml_tensor *q, struct ggml_tensor *k, struct ggml_tensor *v,
        struct ggml_tensor *mask, float scale, float max_bias, float logit_softcap)``.
        """
        return self._build("flash_attn_ext", q, k, v, mask, scale, max_bias, logit_softcap)

    def ssm_conv(self, sx: Tensor, c: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_ssm_conv(struct ggml_context *ctx,
        struct ggml_tensor *sx, struct ggml_tensor *c)``.
        """
        return self._build("ssm_conv", sx, c)

    def ssm_scan(
        self, s: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, ids: Tensor, K: int
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_ssm_scan(struct ggml_context *ctx,
        struct ggml_tensor *s, struct ggml_tensor *x, struct ggml_tensor *dt,
        struct ggml_tensor *A, struct ggml_tensor *B, struct ggml_tensor *C,
        struct ggml_tensor *ids, int64_t K)``.
        """
        return self._build("ssm_scan", s, x, dt, A, B, C, ids, K)

    def win_part(self, a: Tensor, w: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_win_part(struct ggml_context *ctx,
        struct ggml_tensor *a, int w)``.
        """
        return self._build("win_part", a, w)

    def win_unpart(self, a: Tensor, w0: int, h0: int, w: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_win_unpart(struct ggml_context *ctx,
        struct ggml_tensor *a, int w0, int h0, int w)``.
        """
        return self._build("win_unpart", a, w0, h0, w)

    def unary(self, a: Tensor, op: str | int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_unary(struct ggml_context *ctx, struct ggml_tensor *a,
        enum ggml_unary_op op)``.
        """
        return self._build("unary", a, op)

    def unary_inplace(self, a: Tensor, op: str | int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_unary_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, enum ggml_unary_op op)``.
        """
        return self._build("unary_inplace", a, op)

    def get_rel_pos(self, a: Tensor, qh: int, kh: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_get_rel_pos(struct ggml_context *ctx,
        struct ggml_tensor *a, int qh, int kh)``.
        """
        return self._build("get_rel_pos", a, qh, kh)

    def add_rel_pos(self, a: Tensor, pw: Tensor, ph: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_add_rel_pos(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *pw, struct ggml_tensor *ph)``.
        """
        return self._build("add_rel_pos", a, pw, ph)

    def add_rel_pos_inplace(self, a: Tensor, pw: Tensor, ph: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_add_rel_pos_inplace(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *pw, struct ggml_tensor *ph)``.
        """
        return self._build("add_rel_pos_inplace", a, pw, ph)

    def rwkv_wkv6(
        self, k: Tensor, v: Tensor, r: Tensor, tf: Tensor, td: Tensor, state: Tensor
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_rwkv_wkv6(struct ggml_context *ctx,
        struct ggml_tensor *k, struct ggml_tensor *v, struct ggml_tensor *r,
        struct ggml_tensor *tf, struct ggml_tensor *td, struct ggml_tensor *state)``.
        """
        return self._build("rwkv_wkv6", k, v, r, tf, td, state)

    def gated_linear_attn(
        self, k: Tensor, v: Tensor, q: Tensor, g: Tensor, state: Tensor, scale: float
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_gated_linear_attn(struct ggml_context *ctx,
        struct ggml_tensor *k, struct ggml_tensor *v, struct ggml_tensor *q,
        struct ggml_tensor *g, struct ggml_tensor *state, float scale)``.
        """
        return self._build("gated_linear_attn", k, v, q, g, state, scale)

    def rwkv_wkv7(
        self, r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_rwkv_wkv7(struct ggml_context *ctx,
        struct ggml_tensor *r, struct ggml_tensor *w, struct ggml_tensor *k,
        struct ggml_tensor *v, struct ggml_tensor *a, struct ggml_tensor *b,
        struct ggml_tensor *state)``.
        """
        return self._build("rwkv_wkv7", r, w, k, v, a, b, state)

    def solve_tri(self, a: Tensor, b: Tensor, left: bool, lower: bool, uni: bool) -> Tensor:
        """C: ``struct ggml_tensor *ggml_solve_tri(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, bool left, bool lower, bool uni)``.
        """
        return self._build("solve_tri", a, b, left, lower, uni)

    def gated_delta_net(
        self, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor, K: int
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_gated_delta_net(struct ggml_context *ctx,
        struct ggml_tensor *q, struct ggml_tensor *k, struct ggml_tensor *v,
        struct ggml_tensor *g, struct ggml_tensor *beta, struct ggml_tensor *state,
        int64_t K)``.
        """
        return self._build("gated_delta_net", q, k, v, g, beta, state, K)

    def lightning_indexer(self, q: Tensor, k: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_lightning_indexer(struct ggml_context *ctx,
        struct ggml_tensor *q, struct ggml_tensor *k, struct ggml_tensor *weights,
        struct ggml_tensor *mask)``.
        """
        return self._build("lightning_indexer", q, k, weights, mask)

    def dsv4_hc_comb(
        self, mixes: Tensor, scale: Tensor, base: Tensor, eps: float, n_iter: int
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_dsv4_hc_comb(struct ggml_context *ctx,
        struct ggml_tensor *mixes, struct ggml_tensor *scale, struct ggml_tensor *base,
        float eps, int32_t n_iter)``.
        """
        return self._build("dsv4_hc_comb", mixes, scale, base, eps, n_iter)

    def dsv4_hc_pre(self, x: Tensor, weights: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_dsv4_hc_pre(struct ggml_context *ctx,
        struct ggml_tensor *x, struct ggml_tensor *weights)``.
        """
        return self._build("dsv4_hc_pre", x, weights)

    def dsv4_hc_pre_gated(self, x: Tensor, gate: Tensor, scale: float) -> Tensor:
        """C: ``struct ggml_tensor *ggml_dsv4_hc_pre_gated(struct ggml_context *ctx,
        struct ggml_tensor *x, struct ggml_tensor *gate, float scale)``.
        """
        return self._build("dsv4_hc_pre_gated", x, gate, scale)

    def dsv4_hc_post(
        self, x: Tensor, residual: Tensor, post: Tensor, comb: Tensor | None
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_dsv4_hc_post(struct ggml_context *ctx,
        struct ggml_tensor *x, struct ggml_tensor *residual, struct ggml_tensor *post,
        struct ggml_tensor *comb)``.
        """
        return self._build("dsv4_hc_post", x, residual, post, comb)

    def cross_entropy_loss(self, a: Tensor, b: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_cross_entropy_loss(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b)``.
        """
        return self._build("cross_entropy_loss", a, b)

    def cross_entropy_loss_back(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_cross_entropy_loss_back(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *b, struct ggml_tensor *c)``.
        """
        return self._build("cross_entropy_loss_back", a, b, c)

    def opt_step_adamw(
        self, a: Tensor, grad: Tensor, m: Tensor, v: Tensor, adamw_params: Tensor
    ) -> Tensor:
        """C: ``struct ggml_tensor *ggml_opt_step_adamw(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *grad, struct ggml_tensor *m,
        struct ggml_tensor *v, struct ggml_tensor *adamw_params)``.
        """
        return self._build("opt_step_adamw", a, grad, m, v, adamw_params)

    def opt_step_sgd(self, a: Tensor, grad: Tensor, sgd_params: Tensor) -> Tensor:
        """C: ``struct ggml_tensor *ggml_opt_step_sgd(struct ggml_context *ctx,
        struct ggml_tensor *a, struct ggml_tensor *grad, struct ggml_tensor *sgd_params)``.
        """
        return self._build("opt_step_sgd", a, grad, sgd_params)

    def set_param(self, tensor: Tensor) -> Tensor:
        """C: ``void ggml_set_param(struct ggml_tensor *tensor)``."""
        return self._modify("set_param", tensor)

    def set_loss(self, tensor: Tensor) -> Tensor:
        """C: ``void ggml_set_loss(struct ggml_tensor *tensor)``."""
        return self._modify("set_loss", tensor)

    def prec_set_acc(self, a: Tensor, prec: str | int) -> Tensor:
        """C: ``bool ggml_prec_set_acc(struct ggml_tensor *a, enum ggml_prec prec)``."""
        return self._modify("prec_set_acc", a, prec)

    def prec_set_src(self, a: Tensor, prec: str | int, idx: int) -> Tensor:
        """C: ``bool ggml_prec_set_src(struct ggml_tensor *a, enum ggml_prec prec, int idx)``."""
        return self._modify("prec_set_src", a, prec, idx)

    def mul_mat_set_hint(self, a: Tensor, hint: str | int) -> Tensor:
        """C: ``void ggml_mul_mat_set_hint(struct ggml_tensor *a, enum ggml_op_hint hint)``."""
        return self._modify("mul_mat_set_hint", a, hint)

    def soft_max_add_sinks(self, a: Tensor, sinks: Tensor | None) -> Tensor:
        """C: ``void ggml_soft_max_add_sinks(struct ggml_tensor *a, struct ggml_tensor *sinks)``."""
        return self._modify("soft_max_add_sinks", a, sinks)

    def rope_set_offset(self, a: Tensor, n_offs: int) -> Tensor:
        """C: ``struct ggml_tensor *ggml_rope_set_offset(struct ggml_tensor *a, int n_offs)``."""
        return self._modify("rope_set_offset", a, n_offs)

    def flash_attn_ext_add_sinks(self, a: Tensor, sinks: Tensor | None) -> Tensor:
        """C: ``void ggml_flash_attn_ext_add_sinks(struct ggml_tensor *a,
        struct ggml_tensor *sinks)``.
        """
        return self._modify("flash_attn_ext_add_sinks", a, sinks)

    def flash_attn_ext_set_n_kv_max(self, a: Tensor, n_kv_max: int) -> Tensor:
        """C: ``void ggml_flash_attn_ext_set_n_kv_max(struct ggml_tensor *a, int32_t n_kv_max)``."""
        return self._modify("flash_attn_ext_set_n_kv_max", a, n_kv_max)
