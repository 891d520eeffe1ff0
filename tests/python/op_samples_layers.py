"""Samples of convolution, pooling, resizing, recurrent layers, windows, and training steps."""

from __future__ import annotations

from op_sketch import Sketch, sample

import ggml_concurrent as ggc

#
# Convolution
#


@sample("CONV_TRANSPOSE_1D", "f32", "f16", "strided")
def _conv_transpose_1d(s: Sketch, variant: str) -> ggc.Tensor:
    if variant == "strided":
        return s.g.conv_transpose_1d(s.strided(5, 7, 9), s.strided(33, 9), 2, 0, 1)
    return s.g.conv_transpose_1d(s.f(5, 7, 9, dtype=variant), s.f(33, 9), 2, 0, 1)


@sample("CONV_TRANSPOSE_2D", "f32", "f16")
def _conv_transpose_2d(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.conv_transpose_2d_p0(s.f(3, 3, 5, 7, dtype=variant), s.f(17, 9, 7, 2), 2)


@sample("IM2COL", "f32", "f16", "1d")
def _im2col(s: Sketch, variant: str) -> ggc.Tensor:
    if variant == "1d":
        return s.g.im2col(s.f(3, 7, 5), s.f(33, 7, 2), 2, 0, 1, 0, 1, 0, False, "f16")
    kernel, image = s.f(3, 3, 7, 5), s.inside(17, 9, 7, 2)
    return s.g.im2col(kernel, image, 1, 2, 1, 0, 1, 1, True, "f16" if variant == "f16" else "f32")


@sample("IM2COL", "f16-image")
def _im2col_f16(s: Sketch) -> ggc.Tensor:
    kernel, image = s.f(3, 3, 7, 5, dtype="f16"), s.f(17, 9, 7, dtype="f16")
    return s.g.im2col(kernel, image, 1, 1, 1, 1, 1, 1, True, "f16")


@sample("IM2COL_BACK", "2d", "1d")
def _im2col_back(s: Sketch, variant: str) -> ggc.Tensor:
    if variant == "1d":
        kernel = s.f(3, 7, 5)
        return s.g.im2col_back(s.f(21, 33), kernel, [33, 7, 1, 1], 1, 0, 1, 0, 1, 0, False)
    kernel = s.f(3, 3, 7, 5)
    return s.g.im2col_back(s.f(63, 17, 9, 2), kernel, [17, 9, 7, 2], 1, 1, 1, 1, 1, 1, True)


@sample("IM2COL_3D", "f32", "f16")
def _im2col_3d(s: Sketch, variant: str) -> ggc.Tensor:
    kernel, video = s.f(3, 3, 2, 12), s.f(9, 7, 5, 6)
    return s.g.im2col_3d(kernel, video, 3, 1, 1, 1, 1, 1, 0, 1, 1, 1, variant)


@sample("COL2IM_1D", "f32", "f16", "bf16")
def _col2im_1d(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.col2im_1d(s.f(35, 33, dtype=variant), 2, 7, 1)


@sample("CONV_2D", "f32", "f16", "strided")
def _conv_2d(s: Sketch, variant: str) -> ggc.Tensor:
    layout, dtype = ("strided", "f32") if variant == "strided" else ("whole", variant)
    kernel, image = s.f(3, 3, 7, 8, dtype=dtype), s.laid(layout, 17, 9, 7, 2)
    return s.g.conv_2d_direct(kernel, image, 1, 2, 1, 0, 1, 1)


# Columns of so many patches of 16 f16 values, and 4 results each, fit into the 16 MiB of scratch
# memory that ggml gives them with one thread; it has 64 bytes more for each further one.
_PATCHES = (2**24 + 64) // (16 * 2 + 4 * 4) // 8 * 8


@sample("CONV_2D", "two-batches", heavy=True)
def _conv_2d_in_batches(s: Sketch) -> ggc.Tensor:
    # with one thread the last patch is multiplied alone, by another kernel; with two it is not
    kernel, image = s.f(16, 1, 1, 4, dtype="f16"), s.f(_PATCHES + 16, 1, 1, 1)
    return s.g.conv_2d_direct(kernel, image, 1, 1, 0, 0, 1, 1)


@sample("CONV_3D", "two-batches", heavy=True)
def _conv_3d_in_batches(s: Sketch) -> ggc.Tensor:
    kernel, video = s.f(16, 1, 1, 4, dtype="f16"), s.f(_PATCHES + 16, 1, 1, 1)
    return s.g.conv_3d_direct(kernel, video, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 4)


@sample("CONV_3D", "f32", "f16")
def _conv_3d(s: Sketch, variant: str) -> ggc.Tensor:
    kernel, video = s.f(3, 3, 2, 12, dtype=variant), s.f(9, 7, 5, 6)
    return s.g.conv_3d_direct(kernel, video, 1, 1, 1, 1, 1, 0, 1, 1, 1, 3, 2, 4)


@sample("CONV_2D_DW", "f32", "f16", "channels-first")
def _conv_2d_dw(s: Sketch, variant: str) -> ggc.Tensor:
    if variant == "channels-first":  # in memory: the result is laid out like that, too
        kernel = s.permuted(3, 3, 1, 9, order=(3, 2, 0, 1))
        image = s.permuted(17, 9, 9, 2, order=(2, 0, 1, 3))
        return s.g.conv_2d_dw_direct(kernel, image, 1, 1, 1, 1, 1, 1)
    kernel, image = s.f(3, 3, 1, 9, dtype=variant), s.f(17, 9, 9, 2)
    return s.g.conv_2d_dw_direct(kernel, image, 1, 2, 1, 0, 1, 1)


#
# Pooling and resizing
#


@sample("POOL_1D", "max", "avg", "f16")
def _pool_1d(s: Sketch, variant: str) -> ggc.Tensor:
    dtype = "f16" if variant == "f16" else "f32"
    return s.g.pool_1d(s.f(33, 9, 3, dtype=dtype), "avg" if variant == "avg" else "max", 3, 2, 1)


@sample("POOL_2D", "max", "avg", "f16")
def _pool_2d(s: Sketch, variant: str) -> ggc.Tensor:
    dtype = "f16" if variant == "f16" else "f32"
    op = "avg" if variant == "avg" else "max"
    return s.g.pool_2d(s.f(33, 9, 3, 2, dtype=dtype), op, 3, 2, 2, 2, 1, 1)


@sample("POOL_2D_BACK", "max", "avg")
def _pool_2d_back(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.pool_2d_back(s.f(16, 4, 3), s.f(32, 8, 3), variant, 2, 2, 2, 2, 0, 0)


@sample("UPSCALE", "nearest", "bilinear", "bicubic", "strided", "antialias")
def _upscale(s: Sketch, variant: str) -> ggc.Tensor:
    if variant == "antialias":
        return s.g.interpolate(s.f(17, 9, 3), 9, 5, 3, 1, 1 | 1 << 9)
    a = s.laid("strided" if variant == "strided" else "whole", 17, 9, 3)
    return s.g.interpolate(a, 34, 21, 3, 1, "bilinear" if variant == "strided" else variant)


#
# Recurrent layers
#


@sample("SSM_CONV", "whole", "inside")
def _ssm_conv(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.ssm_conv(s.laid(variant, 12, 33, 2), s.f(4, 33))


@sample("SSM_SCAN", "mamba", "mamba2", "views", "snapshots")
def _ssm_scan(s: Sketch, variant: str) -> ggc.Tensor:
    state, heads, tokens, seqs = 16, 6, 5, 2
    dim = 1 if variant == "mamba" else 8
    decay = s.f(16 if variant == "mamba" else 1, heads)
    if variant == "views":  # x, B and C are stripes of one tensor
        row = heads * dim + 2 * 2 * state
        xbc = s.f(row, tokens, seqs)
        nb, n = xbc.nb, 4
        x = s.g.view_4d(xbc, dim, heads, tokens, seqs, dim * n, nb[1], nb[2], 0)
        b, c = (
            s.g.view_4d(xbc, state, 2, tokens, seqs, state * n, nb[1], nb[2], at * n)
            for at in (heads * dim, heads * dim + 2 * state)
        )
    else:
        x = s.f(dim, heads, tokens, seqs)
        b, c = s.f(state, 2, tokens, seqs), s.f(state, 2, tokens, seqs)
    states = s.f(state, dim, heads, 4)
    ids = s.ints(seqs, limit=4, distinct=True)
    dt = s.f(heads, tokens, seqs)
    return s.g.ssm_scan(states, x, dt, decay, b, c, ids, 3 if variant == "snapshots" else 1)


@sample("RWKV_WKV6", "two-sequences")
def _wkv6(s: Sketch) -> ggc.Tensor:
    k, v, r, td = (s.f(32, 5, 6) for _ in range(4))
    return s.g.rwkv_wkv6(k, v, r, s.f(32, 5), td, s.f(32 * 32 * 5, 2))


@sample("RWKV_WKV7", "two-sequences")
def _wkv7(s: Sketch) -> ggc.Tensor:
    r, w, k, v, a, b = (s.f(64, 5, 6) for _ in range(6))
    return s.g.rwkv_wkv7(r, w, k, v, a, b, s.f(64 * 64 * 5, 2))


@sample("GATED_LINEAR_ATTN", "two-sequences")
def _gated_linear_attention(s: Sketch) -> ggc.Tensor:
    k, v, q, gate = (s.f(32, 5, 6) for _ in range(4))
    return s.g.gated_linear_attn(k, v, q, gate, s.f(32 * 32 * 5, 2), 0.3)


@sample("GATED_DELTA_NET", "scalar-gate", "vector-gate", "snapshots", "strided")
def _delta_net(s: Sketch, variant: str) -> ggc.Tensor:
    size, heads, tokens, seqs = 32, 5, 6, 2
    how = "strided" if variant == "strided" else "whole"
    q, k, v = (s.laid(how, size, heads, tokens, seqs) for _ in range(3))
    gate = s.f(size if variant == "vector-gate" else 1, heads, tokens, seqs)
    beta, state = s.f(1, heads, tokens, seqs, positive=True), s.f(size, size, heads, seqs)
    return s.g.gated_delta_net(q, k, v, gate, beta, state, 3 if variant == "snapshots" else 1)


@sample("SOLVE_TRI", "batched")
def _solve_tri(s: Sketch) -> ggc.Tensor:
    return s.g.solve_tri(s.f(16, 16, 3, positive=True), s.f(21, 16, 3), True, True, False)


@sample("DSV4_HC_COMB", "four")
def _hc_comb(s: Sketch) -> ggc.Tensor:
    return s.g.dsv4_hc_comb(s.f(24, 9), s.f(3), s.f(24), 1e-6, 4)


@sample("DSV4_HC_PRE", "weighted", "gated", "strided")
def _hc_pre(s: Sketch, variant: str) -> ggc.Tensor:
    x = s.laid("strided" if variant == "strided" else "whole", 67, 4, 9)
    if variant == "gated":
        return s.g.dsv4_hc_pre_gated(x, s.f(67, 4, 9), 0.5)
    return s.g.dsv4_hc_pre(x, s.f(4, 9))


@sample("DSV4_HC_POST", "mixed", "plain", "strided")
def _hc_post(s: Sketch, variant: str) -> ggc.Tensor:
    how = "strided" if variant == "strided" else "whole"
    mix = None if variant == "plain" else s.f(4, 4, 9)
    return s.g.dsv4_hc_post(s.laid(how, 67, 9), s.laid(how, 67, 4, 9), s.f(4, 9), mix)


#
# Windows
#


@sample("WIN_PART", "padded")
def _win_part(s: Sketch) -> ggc.Tensor:
    return s.g.win_part(s.inside(7, 10, 9), 4)


@sample("WIN_UNPART", "padded")
def _win_unpart(s: Sketch) -> ggc.Tensor:
    return s.g.win_unpart(s.inside(7, 4, 4, 9), 10, 9, 4)


@sample("GET_REL_POS", "f16", "bf16")
def _get_rel_pos(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.get_rel_pos(s.inside(9, 13, dtype=variant), 7, 7)


@sample("ADD_REL_POS", "copy", "inplace")
def _add_rel_pos(s: Sketch, variant: str) -> ggc.Tensor:
    a, w, h = s.inside(16, 12, 5), s.f(4, 3, 4, 5), s.f(4, 3, 4, 5)
    build = s.g.add_rel_pos if variant == "copy" else s.g.add_rel_pos_inplace
    return build(a, w, h)


#
# Training
#


@sample("OPT_STEP_ADAMW", "whole")
def _adamw(s: Sketch) -> ggc.Tensor:
    weights = s.g.set_param(s.f(67, 9))
    gradient, mean, variance = s.f(67, 9), s.f(67, 9), s.f(67, 9, positive=True)
    params = s.given([1e-3, 0.9, 0.999, 1e-8, 0.01, 2.0, 3.0])
    return s.g.opt_step_adamw(weights, gradient, mean, variance, params)


@sample("OPT_STEP_SGD", "whole")
def _sgd(s: Sketch) -> ggc.Tensor:
    return s.g.opt_step_sgd(s.g.set_param(s.f(67, 9)), s.f(67, 9), s.given([1e-3, 0.01]))
