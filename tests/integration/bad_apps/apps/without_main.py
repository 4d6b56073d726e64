# SPDX-License-Identifier: Apache-2.0
"""Does something at import, and has no main.

expects: ended by itself
"""

READY = True
