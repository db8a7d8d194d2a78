# SPDX-License-Identifier: MIT
"""Whether this runs in the kernel of a notebook, and in which cell."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["current_cell", "in_notebook"]

CONSOLES = {"SpyderShell"}  # shells with a kernel whose consoles show text only


def in_notebook() -> bool:
    """Whether this runs in the kernel of a notebook, such as Jupyter's, VS Code's or Colab's."""
    names = {each.__name__ for each in type(_shell()).__mro__}
    return "ZMQInteractiveShell" in names and not names & CONSOLES


def current_cell() -> int | None:
    """The number of the cell that is being executed; None outside of notebooks."""
    number = getattr(_shell(), "execution_count", None)
    return number if isinstance(number, int) and in_notebook() else None


def _shell() -> Any:
    """IPython's shell, None if there is none."""
    if "IPython" not in sys.modules:
        return None
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:  # a stand-in for IPython; one that is being imported
        return None
    return get_ipython()
