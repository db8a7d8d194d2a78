# SPDX-License-Identifier: MIT
"""What is compared: crnn, and its peers with the same weights. Imports only base."""
