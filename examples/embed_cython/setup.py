# SPDX-License-Identifier: MIT
"""python setup.py build_ext --inplace"""

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

import crnn

folders = [crnn.get_include(), numpy.get_include()]
setup(name="smooth", ext_modules=cythonize([Extension("smooth", ["smooth.pyx"], include_dirs=folders)]))
