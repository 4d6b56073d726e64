# SPDX-License-Identifier: Apache-2.0
"""AWS IoT Jobs on the device: protocol rules, the journal that survives a reset, the runner and built-in handlers."""
