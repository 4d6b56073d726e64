# SPDX-License-Identifier: Apache-2.0
"""MQTT file streams (aws-iot-protocol.md section 10)."""
