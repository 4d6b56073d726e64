# SPDX-License-Identifier: Apache-2.0
"""Signature version 4: who asks, and is the request really theirs. Also makes presigned URLs.

The canonical request and the signature are computed by botocore's own signers, so what a client signs and what we
check cannot drift apart. Checks: known access key, date within 15 minutes, signed `host`, signature (constant time);
the body's hash is returned as claimed and compared by whoever reads the body.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from edgefleet import names
from edgefleet.errors import ApiError

SKEW_S = 15 * 60
PRESIGNED_MAX_S = 7 * 24 * 3600
UNSIGNED = "UNSIGNED-PAYLOAD"
UNSIGNED_CHUNKED = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

_SCOPE = r"(?P<key>[\w+/=.-]{3,128})/(?P<day>\d{8})/(?P<region>[\w-]{1,64})/(?P<service>[\w-]{1,64})/aws4_request"
_HEADER = re.compile(
    rf"AWS4-HMAC-SHA256\s+Credential={_SCOPE},\s*SignedHeaders=(?P<signed>[a-z0-9;_.-]{{1,2048}}),"
    r"\s*Signature=(?P<signature>[0-9a-f]{64})"
)
_QUERY_SCOPE = re.compile(_SCOPE)
_HASH = re.compile(r"[0-9a-f]{64}")


Query = Sequence[tuple[str, str]]  # decoded pairs in the order they came


@dataclass(frozen=True)
class Claim:
    """What a request says of its signer; nothing of it is proven before `Verifier.check`."""

    key: str
    day: str
    region: str
    service: str  # the signing name: "iot", "iotdata", "iot-jobs-data", "s3" …
    date: str  # 20260102T030405Z
    signed: tuple[str, ...]  # names of the signed headers
    signature: str
    content_hash: str | None  # x-amz-content-sha256, if signed
    presigned: bool


class _AsSigned:
    """Makes botocore's signer take exactly the headers and the body hash the client says it signed."""

    body_hash: str

    def headers_to_sign(self, request: AWSRequest) -> object:
        return request.headers

    def payload(self, request: AWSRequest) -> str:
        return self.body_hash


class _Json(_AsSigned, SigV4Auth):  # type: ignore[misc]
    pass


class _S3(_AsSigned, S3SigV4Auth):  # type: ignore[misc]
    pass


class Verifier:
    """Checks signatures against the access keys of the site, and signs URLs with the first of them."""

    def __init__(self, keys: Mapping[str, str], base_url: str) -> None:
        """keys: secret by access key. base_url: where presigned URLs point, `https://host:port`."""
        self._keys = dict(keys)
        self._base_url = base_url

    def claim(self, method: str, query: Query, headers: Mapping[str, str]) -> Claim:
        """Read the signer's claim from the Authorization header, or of a presigned GET, HEAD or S3 PUT from the query.

        query: decoded (name, value) pairs. headers: by lower-case name.
        Raises ApiError 403 (absent, unknown key, too old) or 400 (malformed).
        """
        if "authorization" in headers:
            claim = _from_header(headers)
        elif method in ("GET", "HEAD", "PUT") and any(name == "X-Amz-Signature" for name, _ in query):
            claim = _from_query(dict(query))
            if method == "PUT" and claim.service != "s3":
                raise ApiError("MissingAuthenticationTokenException", "Only S3 takes a presigned PUT", 403)
        else:
            raise ApiError("MissingAuthenticationTokenException", "Missing Authentication Token", 403)
        if claim.key not in self._keys:
            code = "InvalidAccessKeyId" if claim.service == "s3" else "UnrecognizedClientException"
            raise ApiError(code, "The access key in the request is not known here", 403)
        _check_date(claim, dict(query))
        return claim

    def check(
        self, claim: Claim, method: str, raw_path: str, query: Query, headers: Mapping[str, str], body_hash: str
    ) -> None:
        """Prove a claim.

        raw_path: percent-encoded, as it came. body_hash: hex SHA-256 of the body, or UNSIGNED-PAYLOAD.
        Raises ApiError SignatureDoesNotMatch (S3) or InvalidSignatureException 403.
        """
        if "host" not in claim.signed:
            raise _mismatch(claim, "the host header must be signed")
        missing = [name for name in claim.signed if name not in headers]
        if missing:
            raise _mismatch(claim, f"signed header {missing[0]} is absent")
        # Decoded values are quoted again by the signer: clients put a space as `+` on the wire and sign it as %20.
        pairs = [(name, value) for name, value in query if name != "X-Amz-Signature"]
        request = AWSRequest(
            method=method,
            url=f"https://{headers['host']}{raw_path}",
            params=pairs,  # type: ignore[arg-type]  # a list keeps repeated names; the signer takes both
            headers={name: headers[name] for name in claim.signed},
        )
        request.context["timestamp"] = claim.date
        credentials = Credentials(claim.key, self._keys[claim.key])
        signer_class = _S3 if claim.service == "s3" else _Json
        signer = signer_class(credentials, claim.service, claim.region)
        signer.body_hash = body_hash
        canonical = signer.canonical_request(request)
        wanted: str = signer.signature(signer.string_to_sign(request, canonical), request)
        if not hmac.compare_digest(wanted, claim.signature):
            raise _mismatch(claim, "check the secret key and the signing method")

    def presign(self, bucket: str, key: str, expires: int) -> str:
        """A URL that lets anyone who has it GET one object for `expires` seconds."""
        access_key, secret = next(iter(self._keys.items()))
        request = AWSRequest("GET", f"{self._base_url}/{bucket}/{quote(key, safe='/-_.~')}")
        credentials = Credentials(access_key, secret)
        S3SigV4QueryAuth(credentials, "s3", names.REGION, expires).add_auth(request)
        return str(request.url)


def _mismatch(claim: Claim, why: str) -> ApiError:
    code = "SignatureDoesNotMatch" if claim.service == "s3" else "InvalidSignatureException"
    return ApiError(code, f"The request signature does not match: {why}", 403)


def _incomplete(why: str) -> ApiError:
    return ApiError("IncompleteSignatureException", why, 400)


def _from_header(headers: Mapping[str, str]) -> Claim:
    found = _HEADER.fullmatch(headers["authorization"].strip())
    if found is None:
        raise _incomplete("The Authorization header is not a complete AWS4-HMAC-SHA256 signature")
    signed = tuple(found["signed"].split(";"))
    content_hash = headers.get("x-amz-content-sha256") if "x-amz-content-sha256" in signed else None
    if content_hash not in (None, UNSIGNED, UNSIGNED_CHUNKED) and not _HASH.fullmatch(str(content_hash)):
        raise _incomplete("x-amz-content-sha256 must be the hex SHA-256 of the body or UNSIGNED-PAYLOAD")
    if "x-amz-date" not in signed:
        raise _incomplete("x-amz-date must be given and signed")
    return Claim(
        found["key"],
        found["day"],
        found["region"],
        found["service"],
        headers.get("x-amz-date", ""),
        signed,
        found["signature"],
        content_hash,
        False,
    )


def _from_query(values: Mapping[str, str]) -> Claim:
    scope = _QUERY_SCOPE.fullmatch(values.get("X-Amz-Credential", ""))
    signature = values.get("X-Amz-Signature", "")
    if scope is None or values.get("X-Amz-Algorithm") != "AWS4-HMAC-SHA256" or not _HASH.fullmatch(signature):
        raise _incomplete("The presigned URL is not a complete AWS4-HMAC-SHA256 signature")
    signed = tuple(values.get("X-Amz-SignedHeaders", "").lower().split(";"))
    date = values.get("X-Amz-Date", "")
    # S3 presigns without the body's hash; other services sign that of an empty body.
    content_hash = UNSIGNED if scope["service"] == "s3" else None
    return Claim(
        scope["key"], scope["day"], scope["region"], scope["service"], date, signed, signature, content_hash, True
    )


def _check_date(claim: Claim, query: Mapping[str, str]) -> None:
    try:
        signed_at = datetime.strptime(claim.date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise _incomplete("X-Amz-Date must look like 20260102T030405Z") from None
    if claim.date[:8] != claim.day:
        raise _incomplete("The day of the credential scope is not the day of X-Amz-Date")
    now = time.time()
    if claim.presigned:
        given = query.get("X-Amz-Expires", "")
        if not re.fullmatch(r"[0-9]{1,7}", given) or not 1 <= int(given) <= PRESIGNED_MAX_S:
            raise ApiError("AuthorizationQueryParametersError", f"X-Amz-Expires must be 1 to {PRESIGNED_MAX_S}", 400)
        if now > signed_at + int(given) or now < signed_at - SKEW_S:
            raise ApiError("AccessDenied", "Request has expired", 403)
    elif abs(now - signed_at) > SKEW_S:
        message = "Signature expired: the clocks of client and server differ by more than 15 minutes"
        code = "RequestTimeTooSkewed" if claim.service == "s3" else "InvalidSignatureException"
        raise ApiError(code, message, 403)
