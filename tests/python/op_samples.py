"""All samples of operations, and what cannot be sampled.

The samples stand in op_samples_elements, op_samples_matrix and op_samples_layers.
"""

from __future__ import annotations

import op_samples_elements  # noqa: F401  registers its samples
import op_samples_layers  # noqa: F401
import op_samples_matrix  # noqa: F401
from op_sketch import SAMPLES, Bench, Sample, Sketch

__all__ = ["MISREAD", "NOT_SAMPLED", "SAMPLES", "Bench", "Sample"]

# Operations without a sample, and why.
NOT_SAMPLED = {
    "NONE": "computes nothing; a tensor without an operation",
    "MAP_CUSTOM1": "runs a C callback, which may touch anything: a fence in the table",
    "MAP_CUSTOM2": "runs a C callback, which may touch anything: a fence in the table",
    "MAP_CUSTOM3": "runs a C callback, which may touch anything: a fence in the table",
    "CUSTOM": "runs a C callback, which may touch anything: a fence in the table",
}


def _adamw(s: Sketch, place: int) -> object:
    """An AdamW step with gaps in source `place`: 1 the gradient, 2 and 3 the moments."""
    sources = [s.rows(67, 9) if i == place else s.f(67, 9) for i in range(4)]
    params = s.given([1e-3, 0.9, 0.999, 1e-8, 0.01, 2.0, 3.0])
    return s.g.opt_step_adamw(s.g.set_param(sources[0]), *sources[1:], params)


def _pool_2d_back(s: Sketch, place: int) -> object:
    a, af = (
        s.rows(*ne) if i == place else s.f(*ne) for i, ne in enumerate([(16, 4, 3), (32, 8, 3)])
    )
    return s.g.pool_2d_back(a, af, "max", 2, 2, 2, 2, 0, 0)


# Uses in which a kernel of the CPU backend takes a view for contiguous that is not, without saying
# so: it touches bytes that the view does not show, in and out of the tensor.
MISREAD = [
    Sample("CLAMP", "strided", lambda s: s.g.clamp(s.strided(67, 9, 3), -0.5, 0.5)),
    Sample("CLAMP", "permuted", lambda s: s.g.clamp(s.permuted(67, 9, 3), -0.5, 0.5)),
    Sample("ARGSORT", "strided", lambda s: s.g.argsort(s.strided(67, 9, 3), "asc")),
    Sample("TOP_K", "strided", lambda s: s.g.top_k(s.strided(67, 9, 3), 5)),
    Sample(
        "CONV_TRANSPOSE_2D",
        "kernel",
        lambda s: s.g.conv_transpose_2d_p0(s.rows(3, 3, 5, 7), s.f(17, 9, 7, 2), 2),
    ),
    Sample(
        "IM2COL",
        "image",
        lambda s: s.g.im2col(s.f(3, 3, 7, 5), s.rows(17, 9, 7), 1, 1, 1, 1, 1, 1, True, "f32"),
    ),
    Sample(
        "IM2COL_BACK",
        "columns",
        lambda s: s.g.im2col_back(
            s.rows(63, 17, 9), s.f(3, 3, 7, 5), [17, 9, 7, 1], 1, 1, 1, 1, 1, 1, True
        ),
    ),
    Sample(
        "CONV_2D_DW",
        "kernel",
        lambda s: s.g.conv_2d_dw_direct(s.rows(3, 3, 1, 9), s.f(17, 9, 9), 1, 1, 1, 1, 1, 1),
    ),
    Sample("POOL_1D", "strided", lambda s: s.g.pool_1d(s.strided(33, 9, 3), "max", 3, 2, 1)),
    Sample(
        "POOL_2D",
        "strided",
        lambda s: s.g.pool_2d(s.strided(33, 9, 3, 2), "max", 3, 2, 2, 2, 1, 1),
    ),
    Sample("POOL_2D_BACK", "gradient", lambda s: _pool_2d_back(s, 0)),
    Sample("POOL_2D_BACK", "image", lambda s: _pool_2d_back(s, 1)),
    Sample("SSM_CONV", "kernel", lambda s: s.g.ssm_conv(s.f(12, 33, 2), s.rows(4, 33))),
    Sample("WIN_PART", "rows", lambda s: s.g.win_part(s.rows(7, 10, 9), 4)),
    Sample("WIN_UNPART", "rows", lambda s: s.g.win_unpart(s.rows(7, 4, 4, 9), 10, 9, 4)),
    Sample("GET_REL_POS", "rows", lambda s: s.g.get_rel_pos(s.rows(9, 13, dtype="f16"), 7, 7)),
    Sample("OPT_STEP_ADAMW", "gradient", lambda s: _adamw(s, 1)),
    Sample("OPT_STEP_ADAMW", "mean", lambda s: _adamw(s, 2)),
    Sample("OPT_STEP_ADAMW", "variance", lambda s: _adamw(s, 3)),
    Sample(
        "OPT_STEP_SGD",
        "gradient",
        lambda s: s.g.opt_step_sgd(s.g.set_param(s.f(67, 9)), s.rows(67, 9), s.given([1e-3, 0.01])),
    ),
    Sample(
        "MUL_MAT",
        "q4_0-repacked",
        lambda s: s.g.mul_mat(s.repacked(256, 64, dtype="q4_0"), s.rows(256, 6)),
    ),
    Sample(
        "MUL_MAT",
        "q4_K-repacked",
        lambda s: s.g.mul_mat(s.repacked(256, 64, dtype="q4_K"), s.rows(256, 6)),
    ),
]
