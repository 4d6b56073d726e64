# SPDX-License-Identifier: Apache-2.0
"""Templates that turn parameters into things, certificates and policies: by claim, by HTTP, or in bulk (section 6)."""
