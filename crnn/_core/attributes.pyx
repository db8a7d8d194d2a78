# SPDX-License-Identifier: MIT
# cython: binding=True
"""``__setattr__`` of the classes whose public attributes are checked when they are set; see `crnn._attributes`.

Compiled, because learners set private attributes at every step.
"""

from cpython.object cimport PyObject_GenericSetAttr


def set_attribute(object self, str name not None, value) -> None:
    """Set an attribute: a private one as it is, a public one to what the object's ``_checked_attribute`` returns."""
    if not name.startswith("_"):
        value = self._checked_attribute(name, value)
    PyObject_GenericSetAttr(self, name, value)
