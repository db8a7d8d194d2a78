# SPDX-License-Identifier: MIT
"""Forecasting: series become windows that a regressor learns from, and its predictions become values again."""
