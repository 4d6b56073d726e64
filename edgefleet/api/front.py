# SPDX-License-Identifier: Apache-2.0
"""The HTTP front as an ASGI application: check the signature, find the operation, run it in a transaction, answer.

One listener serves all services; the credential scope of the signature says which one is meant
(aws-iot-protocol.md section 2.10). Errors are rest-json (`x-amzn-ErrorType` and `message`), or XML for S3.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from edgefleet.api import shapes
from edgefleet.api.http import ClientGone, HttpRequest, HttpResponse, Receive, Scope, Send
from edgefleet.api.model import Model, Operation
from edgefleet.api.s3 import S3, xml_error
from edgefleet.api.sigv4 import UNSIGNED, Claim, Verifier
from edgefleet.errors import ApiError, not_implemented
from edgefleet.messages import compact
from edgefleet.store import Tx

log = logging.getLogger(__name__)

MAX_BODY = 1024 * 1024  # bytes; the largest legal iot request (a job document, a policy) is far below


class Commit(Protocol):
    """Runs work in a durable transaction and then sends what it queued (`Site.commit`)."""

    def __call__(self, work: Callable[[Tx], dict[str, Any]]) -> dict[str, Any]: ...


class Bound:
    """The implementation of one operation, and the members it understands."""

    def __init__(self, function: Callable[..., dict[str, Any] | None]) -> None:
        self.function = function
        parameters = inspect.signature(function).parameters.values()
        self.members = frozenset(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)


class Front:
    """`operations`: by SigV4 signing name, the objects whose methods are operations of that service."""

    def __init__(
        self,
        model: Model,
        verifier: Verifier,
        operations: Mapping[str, Sequence[object]],
        commit: Commit,
        s3: S3,
        max_body: int = MAX_BODY,
    ) -> None:
        self._model = model
        self._verifier = verifier
        self._commit = commit
        self._s3 = s3
        self._max_body = max_body
        self._bound: dict[tuple[str, str], Bound] = {}
        for service, implementations in operations.items():
            for method in model.operations[service]:
                for implementation in implementations:
                    function = getattr(implementation, method, None)
                    if function is not None:
                        self._bound[service, method] = Bound(function)
                        break

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # no WebSocket here; uvicorn runs without lifespan events
            if scope["type"] == "websocket":
                await send({"type": "websocket.close"})
            return
        request_id = str(uuid.uuid4())
        try:
            request = HttpRequest.of(scope, receive)
        except ApiError as error:
            response, reusable = _failure(error), False
        else:
            try:
                response = await self._answer(request, request_id)
                reusable = await request.drain()
            except ClientGone:
                return
        response.headers["x-amzn-requestid"] = request_id
        if not reusable:  # or the rest of the body would be taken for the next request
            response.headers["connection"] = "close"
        await response.send(send, head=scope["method"] == "HEAD")

    async def _answer(self, request: HttpRequest, request_id: str) -> HttpResponse:
        speaks_s3 = _names_s3(request)
        try:
            claim = self._verifier.claim(request.method, request.query, request.headers)
            if claim.service == "s3":
                return await self._object(request, claim)
            return await self._operation(request, claim)
        except ApiError as error:
            return _s3_failure(error, request_id) if speaks_s3 else _failure(error)
        except ClientGone:
            raise
        except Exception:
            log.exception("request %s failed", request_id)
            failure = ApiError("InternalFailureException", f"Internal failure; see the log for {request_id}", 500)
            return _s3_failure(failure, request_id) if speaks_s3 else _failure(failure)

    async def _object(self, request: HttpRequest, claim: Claim) -> HttpResponse:
        """S3 signs the hash of the body, so a signature is proven before the body is taken."""
        body_hash = claim.content_hash or hashlib.sha256(b"").hexdigest()
        self._verifier.check(claim, request.method, request.path, request.query, request.headers, body_hash)
        return await self._s3.handle(request, body_hash)

    async def _operation(self, request: HttpRequest, claim: Claim) -> HttpResponse:
        body = await request.body(self._max_body)
        body_hash = hashlib.sha256(body).hexdigest()
        if claim.content_hash == UNSIGNED:  # legal here because this front speaks TLS only
            body_hash = UNSIGNED
        elif claim.content_hash not in (None, body_hash):
            raise ApiError("InvalidSignatureException", "x-amz-content-sha256 is not the hash of the body", 403)
        self._verifier.check(claim, request.method, request.path, request.query, request.headers, body_hash)
        service = self._model.service(claim.service)
        if service is None:
            raise not_implemented(f"the service {claim.service}")
        operation, path = self._model.find(service, request.method, request.path)
        bound = self._bound.get((service, operation.method))
        if bound is None:
            raise not_implemented(f"{service} {operation.name}")
        query: dict[str, list[str]] = {}
        for name, value in request.query:
            query.setdefault(name, []).append(value)
        members = shapes.parse(operation.model, path, query, request.headers, body)
        _refuse_unknown(operation, bound, members)
        result = self._commit(lambda tx: bound.function(tx, **members) or {})
        status, headers, content = shapes.serialise(operation.model, operation.status, result)
        return HttpResponse(status, {"content-type": "application/json"} | headers, content)


def _refuse_unknown(operation: Operation, bound: Bound, members: Mapping[str, Any]) -> None:
    """A member that AWS has and our implementation does not must not be ignored in silence."""
    unknown = sorted(members.keys() - bound.members)
    if unknown:
        raise not_implemented(f"{', '.join(unknown)} of {operation.name}")


def _names_s3(request: HttpRequest) -> bool:
    """Does the request, proven or not, speak to S3? Decides only the form of an error."""
    marker = "/s3/aws4_request"
    if marker in request.headers.get("authorization", ""):
        return True
    return any(name == "X-Amz-Credential" and value.endswith(marker) for name, value in request.query)


def _failure(error: ApiError) -> HttpResponse:
    headers = {"content-type": "application/json", "x-amzn-errortype": error.code}
    extra = {name: value for name, value in error.extra.items() if value is not None}
    return HttpResponse(error.status, headers, compact({"message": error.message, **extra}))


def _s3_failure(error: ApiError, request_id: str) -> HttpResponse:
    return HttpResponse(error.status, {"content-type": "application/xml"}, xml_error(error, request_id))
