# SPDX-License-Identifier: MIT
"""What is compared: crnn and other libraries, with the same weights. Imports only base."""
