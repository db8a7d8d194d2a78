# SPDX-License-Identifier: MIT
"""Which BLAS NumPy multiplies with."""

from __future__ import annotations

from typing import Any


def blas_kernel() -> str:
    """Library, version and the kernels that it chose for this CPU."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "BLAS unknown: threadpoolctl not installed"
    pools: list[dict[str, Any]] = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return ", ".join(f"{p['internal_api']} {p['version']} {p.get('architecture', '')}".strip() for p in pools)
