"""Integers that ggml divides by, or takes as they are."""

from __future__ import annotations

import math

from .._ops import SPECS
from .registry import Rule, Values, ne_of, rule

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


def _limit_rule(limits: list[tuple[str, int]]) -> Rule:
    def check(values: Values) -> str | None:
        for name, low in limits:
            if values[name] < low:
                return f"{name} is {values[name]}, it must be at least {low}"
        return None

    return check


for _op in SPECS:
    if _limits := _limits_of(_op):
        rule(_op, inplace=False)(_limit_rule(_limits))


@rule("im2col", "im2col_back")
def _two_dimensional(values: Values) -> str | None:
    if values["is_2D"] and (values["s1"] < 1 or values["d1"] < 1):
        return "s1 and d1 must be at least 1"
    return None


@rule("im2col_3d", "conv_3d")
def _whole_channels(values: Values) -> str | None:
    for name in ("a", "b"):
        n = ne_of(values[name])[3]
        if n % values["IC"]:
            return f"{name}.ne[3] is {n}, it must be a multiple of IC = {values['IC']}"
    return None


@rule("im2col_back")
def _positive_ne(values: Values) -> str | None:
    return None if min(values["ne"]) >= 1 else "ne must be positive"


@rule("norm", "rms_norm", "l2_norm", "group_norm", "rms_norm_back")
def _positive_eps(values: Values) -> str | None:
    return None if values["eps"] >= 0 else f"eps is {values['eps']}, expected 0 or more"


@rule("pool_2d", "pool_2d_back")
def _whole_padding(values: Values) -> str | None:
    for name in ("p0", "p1"):
        if not 0 <= values[name] < 2**20:
            return f"{name} is {values[name]}, expected a number of elements"
    return None


@rule("pad_ext_circular", "pad_circular")
def _once_around(values: Values) -> str | None:
    for i, n in enumerate(ne_of(values["a"])):
        if max(values.get(f"lp{i}", 0), values.get(f"rp{i}", 0), values.get(f"p{i}", 0)) > n:
            return f"the padding of dimension {i} is longer than its {n} elements"
    return None


@rule("roll")
def _shift_inside(values: Values) -> str | None:
    for i, n in enumerate(ne_of(values["a"])):
        if abs(values[f"shift{i}"]) >= n:
            return f"shift{i} must be less than a.ne[{i}] = {n} either way"
    return None


@rule("arange")
def _finite_range(values: Values) -> str | None:
    start, stop, step = values["start"], values["stop"], values["step"]
    if not (all(map(math.isfinite, (start, stop, step))) and start < stop and step > 0):
        return "expected start < stop and step > 0, all finite"
    return None if (stop - start) / step < 2**31 else "too many steps"
