# SPDX-License-Identifier: MIT
"""Files: atomic writing, the format of model files, and the registry of the kinds of models."""
