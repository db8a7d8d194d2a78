# SPDX-License-Identifier: MIT
"""The API reference from docstrings that are written to be read with help().

Docstrings are numpydoc with three liberties: a section "Conventions", indented equations without ``::``, and norms such
as |dL/dh_t|. Names between single backticks become links if the reference has them, and stay code if not.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

from docutils import nodes

# Methods through which models, files and the training loop talk to each other. The reference leaves them out.
BETWEEN_MODULES = {
    "add_training", "add_validation", "append_to", "attachments", "check_valid", "close", "config_types",
    "contents", "data", "deferred", "encode_chunks", "encode_each",
    "end_epoch", "fitted", "from_contents", "from_counts",
    "from_dict", "initial_weights", "is_scaled", "last_state", "learning", "learnt_names", "loss_unit",
    "observed", "outputs_of", "restore", "run_backward", "run_forward", "scaled_sizes", "shapes_of", "state_from",
    "statistics_of", "to_bytes", "to_dict", "training_runs", "weighs_steps", "window",
}
BARS = re.compile(r"(?<![`|\\])\|(?=[^\s|])([^|`]*[^\s|`])\|(?!`)")
UNDERLINE = re.compile(r"-{3,}$")

warnings.filterwarnings("ignore", message="Unknown section Conventions")


def skip(app: Any, what: str, name: str, member: object, skipped: bool, options: object) -> bool | None:
    return True if name in BETWEEN_MODULES else None


def as_numpydoc(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Rewrite the lines of a docstring, in place, before numpydoc reads them."""
    result: list[str] = []
    literal = section = False  # within an equation; below the first heading of a section that numpydoc knows
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        heading = bool(line) and UNDERLINE.match(below) is not None
        if heading and line == "Conventions":
            result += [".. rubric:: Conventions", ""]
            continue
        if result[-2:-1] == [".. rubric:: Conventions"] and UNDERLINE.match(line):
            continue
        section = section or heading
        indented = line.startswith("    ")
        if not section and indented and not literal and result and not result[-1]:
            result += [".. code-block:: text", ""]
            literal = True
        elif line and not indented:
            literal = False
        result.append(line if literal or line.lstrip().startswith((">>>", "...")) else BARS.sub(r"\\|\1\\|", line))
    lines[:] = result


def resolve(app: Any, env: Any, node: Any, content: Any) -> Any:
    """A link to the one object of the reference with this name, or code."""
    if node.get("refdomain") != "py" or node.get("reftype") != "obj":
        return None
    target = node["reftarget"]
    objects = env.get_domain("py").objects
    named = [name for name in objects if name == target or name.endswith(f".{target}")]
    pages = {(objects[name].docname, objects[name].node_id) for name in named}
    if len(pages) == 1:
        page, anchor = pages.pop()
        reference = nodes.reference("", "", internal=True)
        reference["refuri"] = f"{app.builder.get_relative_uri(node['refdoc'], page)}#{anchor}"
        reference += content
        return reference
    return content


def setup(app: Any) -> dict[str, Any]:
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-docstring", as_numpydoc, priority=100)  # numpydoc's has 500
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True}
