# SPDX-License-Identifier: Apache-2.0
"""Errors of the fleet side. A service raises ApiError with AWS's exception name; each front renders it its own way."""

from __future__ import annotations

from typing import Any


class FleetError(Exception):
    """Base. `str(e)` is one line an operator can act on."""


class InputError(FleetError):
    """A file or argument of the operator is wrong: names the field and the limit. The CLI exits with 2."""


class ApiError(FleetError):
    """An AWS-shaped error. `code` is the model's exception name, `extra` its additional members.

    Source: aws-iot-protocol.md sections 0.25 and 2.10, Appendix C.
    """

    def __init__(self, code: str, message: str, status: int, **extra: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.extra = extra


def invalid(message: str) -> ApiError:
    return ApiError("InvalidRequestException", message, 400)


def not_found(message: str) -> ApiError:
    return ApiError("ResourceNotFoundException", message, 404)


def already_exists(message: str, **extra: Any) -> ApiError:
    return ApiError("ResourceAlreadyExistsException", message, 409, **extra)


def version_conflict(message: str) -> ApiError:
    return ApiError("VersionConflictException", message, 409)


def limit_exceeded(message: str) -> ApiError:
    return ApiError("LimitExceededException", message, 410)


def not_implemented(what: str) -> ApiError:
    return ApiError("NotImplementedException", f"edgefleet does not implement {what} yet", 501)
