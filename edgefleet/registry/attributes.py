# SPDX-License-Identifier: Apache-2.0
"""Attributes of things and groups: the rules of section 7.1 and their quotas, in one place. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgefleet import names
from edgefleet.errors import ApiError, invalid

WITHOUT_TYPE = 3
WITH_TYPE = 50
OF_GROUP = 50


def check(attributes: Mapping[str, Any] | None) -> dict[str, str]:
    """Legal names and string values, or InvalidRequestException naming the attribute. None is no attributes."""
    if attributes is None:
        return {}
    if not isinstance(attributes, Mapping):
        raise invalid("attributes: must be an object of strings")
    for name, value in attributes.items():
        names.check("attributeName", name)
        try:
            names.check("attributeValue", value)
        except ApiError as error:
            raise invalid(f"attribute '{name}': {error.message}") from None
    return dict(attributes)


def merged(old: Mapping[str, str], new: Mapping[str, str], merge: bool) -> dict[str, str]:
    """What is stored after an update: replaced, or merged; an empty value deletes the attribute (section 7.1)."""
    return {name: value for name, value in ({**old, **new} if merge else new).items() if value != ""}


def check_count(attributes: Mapping[str, str], has_type: bool) -> None:
    """3 attributes without a thing type, 50 with. Raises InvalidRequestException."""
    most = WITH_TYPE if has_type else WITHOUT_TYPE
    if len(attributes) > most:
        kind = "with" if has_type else "without"
        raise invalid(f"attributes: a thing {kind} a thing type can have at most {most}, not {len(attributes)}")
