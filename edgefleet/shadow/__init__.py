# SPDX-License-Identifier: Apache-2.0
"""Device shadows, classic and named (aws-iot-protocol.md section 9)."""
