"""Rules that single operations are checked against before ggml is called.

ggml checks much itself, by assertions that become GraphError.  Here stands what it does not check
although the process would die of it (a division by zero, a view beyond its tensor, a type that its
kernels refuse at run time), and what is met often enough to deserve a better message.
"""

from __future__ import annotations

from . import integers, kernels, shapes, types, views  # they register their rules
from .registry import check_operation, check_result

__all__ = ["check_operation", "check_result", "integers", "kernels", "shapes", "types", "views"]
