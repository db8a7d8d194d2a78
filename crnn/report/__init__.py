# SPDX-License-Identifier: MIT
"""Reports of trainings, drawn from the entries of their logs alone: pages in HTML, and summaries for notebooks."""

from crnn.report.notebook import curves_html, epochs_html, summary_html
from crnn.report.page import write

__all__ = ["curves_html", "epochs_html", "summary_html", "write"]
