# SPDX-License-Identifier: Apache-2.0
"""Loops for ever while it is imported.

expects: interrupted: WDT_RESET, WDT_RESET, WDT_RESET
"""

while True:
    pass
