# SPDX-License-Identifier: MIT
"""The documentation site: python -m sphinx -W -b html docs docs/_build (needs the extra `docs`, and crnn installed).

Nothing is loaded from the network, when the site is built or when it is read.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))

import crnn  # noqa: E402

PROJECT = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "crnn"
author = "crnn contributors"
copyright = author
version = release = crnn.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "forge_pages",
    "reference",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "_ext", "_templates"]
templates_path = ["_templates"]
nitpicky = True

# ---- pages ---------------------------------------------------------------------------------------------------------

repository_url = PROJECT.get("urls", {}).get("Source", "")
forge_navigation = {  # title <page>, or the page with its own title
    "Learn": ["Overview <site/overview>"],
    "Use": [
        "text",
        "command-line",
        "training",
        "report",
        "callbacks",
        "sequences",
        "Arrays and gradients <arrays>",
        "Embedding <embedding>",
        "PyTorch <pytorch>",
    ],
    "Look up": [
        "api/index",
        "The model file <format>",
        "Guarantees <guarantees>",
        "Bit-identical everywhere <verify>",
        "Speed <benchmarks>",
        "Measure speed <site/measuring>",
        "Published tasks <published>",
    ],
    "Inside": [
        "architecture",
        "One kernel <kernels>",
        "Contributing <site/contributing>",
        "Changelog <site/changelog>",
    ],
}
myst_heading_anchors = 4  # as on a forge: training.md#defaults
myst_enable_extensions = ["colon_fence"]

# ---- reference -----------------------------------------------------------------------------------------------------

autosummary_generate = True
autodoc_typehints = "none"  # the types are in the docstrings
autodoc_member_order = "bysource"
default_role = "py:obj"
numpydoc_show_class_members = False  # autodoc shows them, with their docstrings
numpydoc_use_plots = False
add_module_names = False
smartquotes = False  # h' is the previous h

# ---- look ----------------------------------------------------------------------------------------------------------

html_theme = "furo"
html_title = "crnn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_last_updated_fmt = None  # a build depends on the sources alone
pygments_style, pygments_dark_style = "friendly", "monokai"
