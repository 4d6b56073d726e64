# SPDX-License-Identifier: Apache-2.0
"""Private keys among the files of an artifact, which is for everybody to read: PEM, DER, and the keys of lms_key.py."""

from __future__ import annotations

import json
import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

_DER_BYTES = 8192  # an RSA key of 4096 bits has 2.4 KB
# The head alone is in every program that reads such files; with the body behind it, it is a key.
_PEM = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]{0,200}?[A-Za-z0-9+/]{40}")


def is_private_key(data: bytes) -> bool:
    """True of a file that is one, or holds one as PEM."""
    if _PEM.search(data):
        return True
    if len(data) > _DER_BYTES:
        return False
    if data.lstrip()[:1] == b"{":
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            return False
        return {"lms", "seed"} <= set(found)
    try:
        serialization.load_der_private_key(data, None)
    except TypeError:
        return True  # it has a password
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True
