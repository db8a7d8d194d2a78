# SPDX-License-Identifier: MIT
"""Conversion from and to PyTorch: modules, state dictionaries, and safetensors files with PyTorch's names.

    tensors.py       which tensors are a recurrent module's, and what they mean
    whole.py         whole models: embedding, recurrent module, head, scaling
    state_dicts.py   from_state_dict, to_state_dict, load_file, save_file
    reading.py       from_module
    writing.py       to_module, to_cell
    _modules.py      the modules that to_module makes of models

The order of the gates is the same in PyTorch and crnn. Only `from_module`, `to_module` and `to_cell` import torch:
state dictionaries and files are names and arrays.
"""

from __future__ import annotations

from crnn.interop.torch.reading import from_module
from crnn.interop.torch.state_dicts import from_state_dict, load_file, save_file, to_state_dict
from crnn.interop.torch.writing import to_cell, to_module

__all__ = ["from_module", "from_state_dict", "load_file", "save_file", "to_cell", "to_module", "to_state_dict"]
