# SPDX-License-Identifier: Apache-2.0
"""Ownership tokens: the right to make a device of one pending certificate (aws-iot-protocol.md section 6.1).

A token is good for one successful provisioning within an hour. A device that loses power between the two requests
simply starts again; what it left behind is removed when its token expires.
"""

from __future__ import annotations

import hashlib
import secrets
import time

from edgefleet.errors import ApiError
from edgefleet.registry import certificates
from edgefleet.store import Tx

LIFETIME_S = 3600
# Pending certificates at a time. Whoever holds a claim certificate could otherwise fill the disk within the hour.
PENDING = 10_000
_EXPIRED_AT_ONCE = 100


def create(tx: Tx, certificate_pem: str) -> tuple[str, str]:
    """Register a new certificate as pending. Returns (certificate id, token).

    Raises ThrottlingException 429 while too many certificates wait for their device.
    """
    expire(tx)
    if tx.value("SELECT count(*) FROM ownership_tokens") >= PENDING:
        raise ApiError("ThrottlingException", f"{PENDING} certificates wait for their device; try again later", 429)
    certificate_id = certificates.register(tx, certificate_pem, certificates.PENDING)
    token = secrets.token_urlsafe(96)
    tx.execute(
        "INSERT INTO ownership_tokens VALUES (?, ?, ?)", (_hash(token), certificate_id, time.time() + LIFETIME_S)
    )
    return certificate_id, token


def certificate_of(tx: Tx, token: str) -> str | None:
    """The id of the certificate a token stands for; None if it is unknown, used or expired, or if an operator has
    decided about the certificate since."""
    certificate_id: str | None = tx.value(
        "SELECT t.certificate_id FROM ownership_tokens t JOIN certificates c ON c.id = t.certificate_id"
        " WHERE t.token_hash = ? AND t.expires_at > ? AND c.status = ?",
        (_hash(token), time.time(), certificates.PENDING),
    )
    return certificate_id


def use(tx: Tx, token: str) -> None:
    """The token has served its purpose."""
    tx.execute("DELETE FROM ownership_tokens WHERE token_hash = ?", (_hash(token),))


def expire(tx: Tx) -> int:
    """Remove some expired tokens with the certificates nobody came for. Returns how many."""
    rows = tx.all(
        "SELECT t.token_hash, t.certificate_id, c.status FROM ownership_tokens t JOIN certificates c"
        " ON c.id = t.certificate_id WHERE t.expires_at <= ? LIMIT ?",
        (time.time(), _EXPIRED_AT_ONCE),
    )
    for row in rows:
        tx.execute("DELETE FROM ownership_tokens WHERE token_hash = ?", (row["token_hash"],))
        if row["status"] == certificates.PENDING:
            certificates.discard(tx, row["certificate_id"])
    return len(rows)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
