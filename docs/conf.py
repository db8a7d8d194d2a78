# SPDX-License-Identifier: MIT
"""The documentation site: python -m sphinx -W -b html docs docs/_build (needs the extra `docs`, and crnn installed).

Nothing is loaded from the network, when the site is built or when it is read.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))

import matplotlib.font_manager  # noqa: E402, F401  it makes its cache now, and not within an example

import crnn  # noqa: E402
import crnn.training.reporter  # noqa: E402

project = "crnn"
author = "crnn contributors"
copyright = author
version = release = crnn.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "forge_pages",
    "reference",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "_ext", "_templates"]
templates_path = ["_templates"]
nitpicky = True

# ---- pages ---------------------------------------------------------------------------------------------------------

repository_url = os.environ.get("CRNN_REPOSITORY", "")  # as for the package's page, see setup.py: project_page
forge_navigation = {  # title <page>, or the page with its own title
    "Learn": ["Overview <site/overview>", "Lessons <lessons/index>", "Gallery <gallery/index>"],
    "Use": [
        "text",
        "command-line",
        "training",
        "Data parallel training <data-parallel>",
        "report",
        "callbacks",
        "sequences",
        "forecasting",
        "Learning from a stream <learning-streams>",
        "scikit-learn",
        "Arrays and gradients <arrays>",
        "Embedding <embedding>",
        "Models in fewer bits <quantisation>",
        "C without a library <export-c>",
        "Compression <compression>",
        "PyTorch <pytorch>",
        "ONNX <onnx>",
        "Keras <keras>",
        "Audio models <audio-formats>",
    ],
    "Recipes": [
        "gunicorn <recipes/gunicorn>",
        "AWS Lambda <recipes/aws-lambda>",
        "Raspberry Pi <recipes/raspberry-pi>",
        "Home Assistant <recipes/home-assistant>",
        "In the browser <site/browser>",
    ],
    "Look up": [
        "api/index",
        "The model file <format>",
        "Guarantees <guarantees>",
        "Versions <versions>",
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

# ---- examples ------------------------------------------------------------------------------------------------------

# The programs run when the site is built; each becomes a page with its output and pictures, and a notebook to download.
sphinx_gallery_conf = {
    "examples_dirs": ["../examples/lessons", "../examples/gallery"],
    "gallery_dirs": ["lessons", "gallery"],
    "filename_pattern": r"\.py$",  # all run
    "within_subsection_order": "example_order.ExampleOrder",
    "abort_on_example_error": True,
    "write_computation_times": False,  # a build depends on the sources alone
    "min_reported_time": 1_000_000,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_signature": False,
    "capture_repr": (),
    "doc_module": ("crnn",),
    "backreferences_dir": "api/generated",  # the examples that use a class, on its page
}
os.environ["OPENBLAS_NUM_THREADS"] = "1"
# What an example prints must not depend on how long it takes: no bar, and no lines about the progress.
os.environ["CI"] = "true"
crnn.training.reporter.UNTOLD = float("inf")

# ---- reference -----------------------------------------------------------------------------------------------------

autosummary_generate = True
autodoc_typehints = "none"  # the types are in the docstrings
autodoc_member_order = "alphabetical"  # inherited ones among them
default_role = "py:obj"
numpydoc_show_class_members = False  # autodoc shows them, with their docstrings
numpydoc_use_plots = False
add_module_names = False
toc_object_entries_show_parents = "hide"
smartquotes = False  # h' is the previous h

# ---- look ----------------------------------------------------------------------------------------------------------

html_theme = "furo"
html_title = "crnn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_last_updated_fmt = None  # a build depends on the sources alone
highlight_language = "none"  # of blocks that do not name theirs
pygments_style, pygments_dark_style = "github-light-high-contrast", "github-dark"
