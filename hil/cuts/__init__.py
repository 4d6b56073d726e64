# SPDX-License-Identifier: Apache-2.0
"""Power cuts, failing flash and decayed bytes at every durable operation of the agent. What it does: docs/cuts.md."""
