"""Samples of products, rows by index, norms, soft maximum, rotation and attention."""

from __future__ import annotations

from op_sketch import Sketch, add, sample

import ggml_concurrent as ggc

# Weights that the CPU backend multiplies by.
QUANTIZED = (
    "q1_0 q2_0 q4_0 q4_1 q5_0 q5_1 q8_0 mxfp4 nvfp4 q2_K q3_K q4_K q5_K q6_K tq1_0 tq2_0 iq2_xxs "
    "iq2_xs iq2_s iq3_xxs iq3_s iq1_s iq1_m iq4_nl iq4_xs"
).split()
# Rows that can be written, by SET_ROWS for one.
WRITTEN = "f32 f16 bf16 q4_0 q5_1 q8_0 q4_K q6_K iq4_nl".split()


#
# Products
#

# f32 and f16 take different kernels for 1, for 2 to 7, and for 8 and more columns
for _columns in (1, 5, 17):
    for _type in ("f32", "f16", "bf16", *QUANTIZED):
        add(
            "MUL_MAT",
            f"{_type}-{_columns}",
            lambda s, t=_type, n=_columns: s.g.mul_mat(s.f(256, 32, dtype=t), s.f(256, n)),
        )


@sample("MUL_MAT", "f32-tiles", "f16-tiles", "q4_0-tiles", "q4_K-tiles")
def _product_in_tiles(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.mul_mat(s.f(256, 96, dtype=variant[:-6]), s.f(256, 70))


PRODUCTS = {
    "strided": lambda s: (s.strided(64, 31, 3), s.strided(64, 9, 3)),
    # several heads of queries for each head of keys
    "broadcast": lambda s: (s.f(64, 31, 2, 1), s.f(64, 9, 6, 2)),
    # keys and queries with their heads permuted, as attention has them
    "cache": lambda s: (s.permuted(64, 31, 2, dtype="f16"), s.permuted(64, 9, 6)),
    "f16-strided": lambda s: (s.strided(64, 31, 2, dtype="f16"), s.strided(64, 9, 2)),
    "f16-f16": lambda s: (s.f(64, 31, dtype="f16"), s.strided(64, 9, dtype="f16")),
    "odd": lambda s: (s.f(67, 31), s.f(67, 9)),
    "vector": lambda s: (s.f(67, 1), s.f(67, 1)),
}
for _variant, _operands in PRODUCTS.items():
    add("MUL_MAT", _variant, lambda s, operands=_operands: s.g.mul_mat(*operands(s)))


@sample("MUL_MAT", "q4_0-views", "q4_K-views")
def _product_of_views(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.mul_mat(s.strided(256, 30, 2, dtype=variant[:4]), s.strided(256, 9, 4))


@sample("MUL_MAT", "hadamard")
def _hadamard(s: Sketch) -> ggc.Tensor:
    return s.g.mul_mat_set_hint(s.g.mul_mat(s.f(64, 64), s.strided(64, 9)), "src0_is_hadamard")


for _columns in (1, 3, 6):
    for _type in ("q4_0", "q4_K", "q5_K", "q6_K", "q8_0", "q2_K", "iq4_nl"):
        add(
            "MUL_MAT",
            f"{_type}-repacked-{_columns}",
            lambda s, t=_type, n=_columns: s.g.mul_mat(s.repacked(256, 64, dtype=t), s.f(256, n)),
        )

for _type in ("f32", "f16", "bf16", *QUANTIZED):
    add(
        "MUL_MAT_ID",
        _type,
        lambda s, t=_type: s.g.mul_mat_id(
            s.f(256, 30, 4, dtype=t), s.f(256, 2, 9), s.ints(2, 9, limit=4, distinct=True)
        ),
    )


@sample(
    "MUL_MAT_ID", "broadcast", "strided", "one-token", "q4_0-repacked", "q4_K-repacked", "crowded"
)
def _experts(s: Sketch, variant: str) -> ggc.Tensor:
    if variant.endswith("repacked"):
        weights = s.repacked(256, 32, 4, dtype=variant[:4])
        return s.g.mul_mat_id(weights, s.f(256, 1, 9), s.ints(2, 9, limit=4, distinct=True))
    if variant == "one-token":
        return s.g.mul_mat_id(s.f(64, 31, 4), s.f(64, 1, 1), s.ints(2, 1, limit=4, distinct=True))
    if variant == "crowded":  # enough rows for one expert to be multiplied in tiles
        return s.g.mul_mat_id(
            s.f(256, 32, 2, dtype="q4_K"), s.f(256, 1, 40), s.ints(1, 40, limit=2)
        )
    make = s.strided if variant == "strided" else s.f
    weights = make(64, 31, 4, dtype="f16")
    return s.g.mul_mat_id(weights, make(64, 1, 9), s.ints(2, 9, limit=4, distinct=True))


@sample("OUT_PROD", "f32", "strided", "broadcast", "f16", "q4_0", "q4_K", "transposed")
def _outer_product(s: Sketch, variant: str) -> ggc.Tensor:
    if variant == "broadcast":
        return s.g.out_prod(s.f(33, 9, 2), s.f(17, 9, 4))
    if variant == "transposed":
        return s.g.out_prod(s.f(33, 9), s.transposed(17, 9))
    if variant == "strided":
        return s.g.out_prod(s.strided(33, 9, 2), s.strided(17, 9, 2))
    return s.g.out_prod(s.f(256, 9, 2, dtype=variant), s.f(17, 9, 2))


#
# Rows by index
#

for _type in ("f32", "f16", "bf16", *QUANTIZED):
    add(
        "GET_ROWS",
        _type,
        lambda s, t=_type: s.g.get_rows(s.f(256, 12, dtype=t), s.ints(9, limit=12)),
    )


@sample("GET_ROWS", "i32", "batched", "strided", "q4_0-strided")
def _get_rows(s: Sketch, variant: str) -> ggc.Tensor:
    if variant == "i32":
        return s.g.get_rows(s.ints(64, 12, limit=99), s.ints(9, limit=12))
    if variant == "batched":
        return s.g.get_rows(s.permuted(64, 12, 3), s.ints(9, 3, limit=12))
    dtype = "q4_0" if variant.startswith("q4_0") else "f32"
    return s.g.get_rows(s.strided(64, 12, 2, dtype=dtype), s.ints(9, 2, limit=12))


@sample("GET_ROWS_BACK", "f32", "f16")
def _get_rows_back(s: Sketch, variant: str) -> ggc.Tensor:
    rows = s.f(67, 9, dtype=variant)
    return s.g.get_rows_back(rows, s.ints(9, limit=12), s.f(67, 12))


for _type in WRITTEN:
    add(
        "SET_ROWS",
        _type,
        lambda s, t=_type: s.g.set_rows(
            s.f(256, 12, dtype=t), s.f(256, 5), s.ints(5, limit=12, dtype="i64", distinct=True)
        ),
    )


@sample("SET_ROWS", "cache", "batched", "strided", "single-values", "f16-rows")
def _set_rows(s: Sketch, variant: str) -> ggc.Tensor:
    if variant == "cache":
        rows = s.ints(5, limit=12, dtype="i64", distinct=True)
        return s.g.set_rows(s.inside(64, 12, dtype="f16"), s.rows(64, 5), rows)
    if variant == "batched":
        rows = s.ints(5, 3, limit=12, distinct=True)
        return s.g.set_rows(s.permuted(64, 12, 3, dtype="f16"), s.permuted(64, 5, 3), rows)
    if variant == "strided":
        rows = s.ints(5, 2, limit=12, distinct=True)
        return s.g.set_rows(s.strided(64, 12, 2), s.strided(64, 5, 2), rows)
    if variant == "single-values":  # the transposed cache of values
        rows = s.ints(45, limit=60, dtype="i64", distinct=True)
        return s.g.set_rows(s.f(1, 60, dtype="f16"), s.f(1, 45), rows)
    rows = s.ints(5, limit=12, dtype="i64", distinct=True)
    return s.g.set_rows(s.f(64, 12, dtype="f16"), s.rows(64, 5, dtype="f16"), rows)


#
# Norms
#

NORMS = {
    "NORM": lambda s, a: s.g.norm(a, 1e-5),
    "RMS_NORM": lambda s, a: s.g.rms_norm(a, 1e-5),
    "L2_NORM": lambda s, a: s.g.l2_norm(a, 1e-5),
}
for _name, _build in NORMS.items():
    for _layout in ("whole", "rows", "strided", "permuted"):
        add(_name, _layout, lambda s, b=_build, how=_layout: b(s, s.laid(how, 67, 9, 3)))
add("NORM", "inplace", lambda s: s.g.norm_inplace(s.strided(67, 9, 3), 1e-5))
add("RMS_NORM", "inplace", lambda s: s.g.rms_norm_inplace(s.strided(67, 9, 3), 1e-5))
add("L2_NORM", "inplace", lambda s: s.g.l2_norm_inplace(s.strided(67, 9, 3), 1e-5))


@sample("GROUP_NORM", "whole", "strided", "inplace")
def _group_norm(s: Sketch, variant: str) -> ggc.Tensor:
    if variant == "inplace":
        return s.g.group_norm_inplace(s.inside(17, 5, 12), 4, 1e-5)
    return s.g.group_norm(s.laid(variant, 17, 5, 12), 5, 1e-5)


@sample("RMS_NORM_BACK", "whole", "strided")
def _rms_norm_back(s: Sketch, variant: str) -> ggc.Tensor:
    return s.g.rms_norm_back(s.laid(variant, 67, 9, 3), s.laid(variant, 67, 9, 3), 1e-5)


#
# Soft maximum
#


@sample("SOFT_MAX", "plain", "mask", "f16-mask", "alibi", "sinks", "inplace")
def _soft_max(s: Sketch, variant: str) -> ggc.Tensor:
    a = s.inside(67, 9, 4)
    if variant in ("plain", "inplace"):
        return s.g.soft_max(a) if variant == "plain" else s.g.soft_max_inplace(a)
    mask = s.f(67, 12, dtype="f16" if variant == "f16-mask" else "f32")
    node = s.g.soft_max_ext(a, mask, 0.3, 2.0 if variant == "alibi" else 0.0)
    return s.g.soft_max_add_sinks(node, s.f(4)) if variant == "sinks" else node


@sample("SOFT_MAX_BACK", "copy", "inplace")
def _soft_max_back(s: Sketch, variant: str) -> ggc.Tensor:
    a, b = s.inside(67, 9, 4), s.inside(67, 9, 4)
    build = s.g.soft_max_ext_back if variant == "copy" else s.g.soft_max_ext_back_inplace
    return build(a, b, 0.3, 0.0)


@sample("CROSS_ENTROPY_LOSS", "whole", "many-rows")
def _cross_entropy_loss(s: Sketch, variant: str) -> ggc.Tensor:
    ne = (67, 9) if variant == "whole" else (33, 200)
    return s.g.cross_entropy_loss(s.f(*ne), s.f(*ne, positive=True))


@sample("CROSS_ENTROPY_LOSS_BACK", "whole")
def _cross_entropy_loss_back(s: Sketch) -> ggc.Tensor:
    return s.g.cross_entropy_loss_back(s.f(1), s.f(67, 9), s.f(67, 9, positive=True))


#
# Rotation
#

MODES = ("normal", "neox", "mrope", "vision", "imrope")


def _rope(s: Sketch, build: str, a: ggc.Tensor, mode: str, n_dims: int = 32) -> ggc.Tensor:
    multi = mode in ("mrope", "vision", "imrope")
    positions = s.ints(9 * (4 if multi else 1), limit=1000)
    rest = (4096, 10000.0, 1.0, 0.0, 1.0, 32.0, 1.0)
    if multi:
        method = getattr(s.g, build.replace("ext", "multi"))
        return method(a, positions, None, n_dims, [n_dims // 8] * 4, mode, *rest)
    return getattr(s.g, build)(a, positions, None, n_dims, mode, *rest)


for _mode in MODES:
    _n = 16 if _mode == "vision" else 24
    for _layout in ("strided", "permuted"):
        add(
            "ROPE",
            f"{_mode}-{_layout}",
            lambda s, m=_mode, n=_n, how=_layout: _rope(s, "rope_ext", s.laid(how, 32, 3, 9), m, n),
        )
    add(
        "ROPE_BACK",
        _mode,
        lambda s, m=_mode, n=_n: _rope(s, "rope_ext_back", s.strided(32, 3, 9), m, n),
    )


@sample("ROPE", "inplace", "f16", "frequencies", "yarn", "offset")
def _rope_variant(s: Sketch, variant: str) -> ggc.Tensor:
    if variant == "inplace":
        return _rope(s, "rope_ext_inplace", s.strided(32, 3, 9), "neox", 24)
    if variant == "f16":
        return _rope(s, "rope_ext", s.strided(32, 3, 9, dtype="f16"), "normal", 24)
    a, positions = s.strided(32, 3, 9), s.ints(9, limit=1000)
    if variant == "offset":
        return s.g.rope_set_offset(s.g.rope(a, positions, 16, "neox"), 8)
    factors = s.f(16, positive=True) if variant == "frequencies" else None
    extension = 1.0 if variant == "yarn" else 0.0
    return s.g.rope_ext(
        a, positions, factors, 32, "neox", 4096, 10000.0, 0.5, extension, 1.0, 32.0, 1.0
    )


#
# Attention
#


def _attention(
    s: Sketch, n_queries: int, n_keys: int, dtype: str, *, masked: bool = True, dims: int = 64
) -> ggc.Tensor:
    """8 heads of queries over 2 of keys and values, which lie in a cache of 2 * dims columns."""
    q = s.permuted(dims, n_queries, 8)
    k = s.permuted(dims, n_keys, 2, dtype=dtype)
    v = s.permuted(dims, n_keys, 2, dtype=dtype)
    mask = s.f(n_keys, n_queries, dtype="f16") if masked else None
    return s.g.flash_attn_ext(q, k, v, mask, 0.125, 0.0, 0.0)


for _type in ("f32", "f16", "bf16", "q4_0", "q8_0"):
    add("FLASH_ATTN_EXT", f"{_type}-prompt", lambda s, t=_type: _attention(s, 13, 96, t))
    add("FLASH_ATTN_EXT", f"{_type}-one-query", lambda s, t=_type: _attention(s, 1, 96, t))


@sample("FLASH_ATTN_EXT", "511-keys", "512-keys", "long-cache")
def _attention_to_cache(s: Sketch, variant: str) -> ggc.Tensor:
    # from 512 positions on each thread takes a part of the cache
    return _attention(s, 1, {"511-keys": 511, "512-keys": 512}.get(variant, 640), "f16")


@sample("FLASH_ATTN_EXT", "batch", "no-mask", "sinks", "alibi", "softcap", "strided")
def _attention_variant(s: Sketch, variant: str) -> ggc.Tensor:
    if variant == "batch":
        return _attention(s, 70, 96, "f32")
    if variant == "no-mask":
        return _attention(s, 5, 96, "f16", masked=False)
    if variant == "sinks":
        return s.g.flash_attn_ext_add_sinks(_attention(s, 5, 96, "f16"), s.f(8))
    q, k, v = (
        s.strided(64, 5, 8),
        s.strided(64, 96, 2, dtype="f16"),
        s.strided(64, 96, 2, dtype="f16"),
    )
    mask = s.f(96, 5, dtype="f16")
    bias, cap = (8.0 if variant == "alibi" else 0.0), (2.0 if variant == "softcap" else 0.0)
    return s.g.flash_attn_ext(q, k, v, mask, 0.125, bias, cap)


@sample("FLASH_ATTN_BACK", "masked", "plain")
def _attention_back(s: Sketch, variant: str) -> ggc.Tensor:
    # ggml's builder ends with an error, its kernel works: gradients of q, k and v one after another
    q, k, v, d = s.f(32, 5, 4), s.f(32, 12, 2), s.f(12, 32, 2), s.f(32, 5, 4)
    n = sum(t.ne[0] * t.ne[1] * t.ne[2] for t in (q, k, v))
    masked = [1 if variant == "masked" else 0]
    return s.by_hand(s.f(n), "FLASH_ATTN_BACK", [q, k, v, d], masked)


@sample("LIGHTNING_INDEXER", "f32", "f16", "q8_0", "strided")
def _lightning_indexer(s: Sketch, variant: str) -> ggc.Tensor:
    dtype = "f32" if variant == "strided" else variant
    make = s.strided if variant == "strided" else s.f
    q, k = make(64, 8, 9), make(64, 1, 40, dtype=dtype)
    return s.g.lightning_indexer(q, k, make(8, 9), s.f(40, 9, dtype="f16"))
