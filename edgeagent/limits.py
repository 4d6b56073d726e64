# SPDX-License-Identifier: Apache-2.0
"""Hard limits that more than one module of the device side keeps, with units."""


class LIMITS:
    """Bytes and seconds."""

    MQTT_PACKET = 16384  # receive cap; larger packets are drained and reported
    BLOCK = 4096  # OTA block
    MANIFEST_BYTES = 4096
    CONNECT_S = 30  # TCP + TLS + CONNACK
    REQUEST_S = 15  # one request/response on a reserved topic
