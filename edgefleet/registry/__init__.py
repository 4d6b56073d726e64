# SPDX-License-Identifier: Apache-2.0
"""Things, types, groups, certificates and policies (aws-iot-protocol.md section 7)."""
