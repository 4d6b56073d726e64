# SPDX-License-Identifier: Apache-2.0
"""Hard limits of the device side, in one place, with units."""


class LIMITS:
    """Bytes and seconds unless the name says otherwise."""

    CONFIG_BYTES = 8192
    MQTT_PACKET = 16384  # receive cap; larger packets are drained and reported
    JOB_DOCUMENT = 8192  # an 8 KB document already needs 21 KB of heap as objects
    JOURNAL_BYTES = 8192
    CREDENTIAL_BYTES = 8192
    STATUS_DETAIL_CHARS = 1024  # AWS IoT: job statusDetails value
    STATUS_DETAIL_PAIRS = 10
    SHADOW_BYTES = 8192
    BLOCK = 4096  # OTA block
    MANIFEST_BYTES = 4096
    CONNECT_S = 30  # TCP + TLS + CONNACK
    REQUEST_S = 15  # one request/response on a reserved topic
    BACKOFF_MIN_S = 1
    BACKOFF_MAX_S = 60
