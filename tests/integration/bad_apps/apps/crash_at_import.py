# SPDX-License-Identifier: Apache-2.0
"""Crashes while it is imported.

expects: RuntimeError: no sensor \(app\.py:8\)
"""

raise RuntimeError("no sensor")
