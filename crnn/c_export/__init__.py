# SPDX-License-Identifier: MIT
"""Models as one C99 file each, without a library: `export_c`.

    model --_stream_parts--> StreamParts --source.py--> model.c, model.h

The folder `c` has the C functions, of which a file gets those that it uses; `cells.py` what a step of each cell does
with them; `storage.py` how weights are stored and multiplied; `answers.py` what else a kind of model offers.
"""

from crnn.c_export.files import export_c

__all__ = ["export_c"]
