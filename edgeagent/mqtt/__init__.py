# SPDX-License-Identifier: Apache-2.0
"""The agent's own MQTT 3.1.1 client: packet (codec), client (session), rpc (requests), backoff."""
