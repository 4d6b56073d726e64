# SPDX-License-Identifier: Apache-2.0
"""Imports a module that was not packed.

expects: ImportError: .*fuel_injection
"""

import fuel_injection


def main():
    fuel_injection.start()
