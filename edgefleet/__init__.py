# SPDX-License-Identifier: Apache-2.0
"""edgefleet: the fleet manager for people who run their own site, speaking AWS IoT's protocols."""

__version__ = "0.1.0"
