# SPDX-License-Identifier: Apache-2.0
"""Figures, each beside the limit it is held to: `make bench`."""
