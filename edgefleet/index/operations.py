# SPDX-License-Identifier: Apache-2.0
"""Operations of `iot` on the fleet index (aws-iot-protocol.md section 8).

The index is always on and covers registry, classic and named shadows, and connectivity: the configuration says so and
cannot be changed.
"""

from __future__ import annotations

import math
import re
from typing import Any

from edgefleet import paging
from edgefleet.errors import ApiError, invalid, not_found
from edgefleet.index import aggregation, documents, query
from edgefleet.index.index import Index
from edgefleet.index.query import Node
from edgefleet.index.values import Term
from edgefleet.registry import things
from edgefleet.store import Tx

INDEX = "AWS_Things"
QUERY_VERSION = "2017-09-30"
MAX_PAGE = 500
DEFAULT_PAGE = 100
MAX_BUCKETS = 10_000
DEFAULT_BUCKETS = 10
_AGGREGATED_ONLY = re.compile(r"registry\.version|shadow\.(?:name\.[^.]+\.)?version")
_MANAGED = (
    ("thingId", "String"),
    ("thingName", "String"),
    ("registry.version", "Number"),
    ("registry.thingTypeName", "String"),
    ("registry.thingGroupNames", "String"),
    ("shadow.version", "Number"),
    ("shadow.hasDelta", "Boolean"),
    ("shadow.name.*.version", "Number"),
    ("shadow.name.*.hasDelta", "Boolean"),
    ("connectivity.connected", "Boolean"),
    ("connectivity.timestamp", "Number"),
    ("connectivity.disconnectReason", "String"),
)
_MANAGED_ALIASES = {"registry.thingTypeName": "thingTypeName", "registry.thingGroupNames": "thingGroupNames"}


class IndexOperations:
    """index: the one that the store's transactions keep up to date."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def search_index(self, tx: Tx, *, queryString: str, indexName: str | None = None, nextToken: str | None = None,
                     maxResults: int | None = None, queryVersion: str | None = None) -> dict[str, Any]:  # fmt: skip
        node = _query(queryString, indexName, queryVersion)
        count = DEFAULT_PAGE if maxResults is None else paging.limit(maxResults, MAX_PAGE)
        after = paging.decode(nextToken, str)
        found = self._index.search(tx, node, after[0] if after else "", count + 1)
        page: dict[str, Any] = {"things": [document for _, document in found[:count]]}
        if len(found) > count:
            page["nextToken"] = paging.encode(found[count - 1][0])
        return page

    def get_statistics(self, tx: Tx, *, queryString: str, indexName: str | None = None,
                       aggregationField: str | None = None,
                       queryVersion: str | None = None) -> dict[str, Any]:  # fmt: skip
        terms = self._aggregated(tx, queryString, indexName, aggregationField, queryVersion)
        return {"statistics": aggregation.statistics(terms)}

    def get_cardinality(self, tx: Tx, *, queryString: str, indexName: str | None = None,
                        aggregationField: str | None = None,
                        queryVersion: str | None = None) -> dict[str, Any]:  # fmt: skip
        """Exact, where the service approximates."""
        terms = self._aggregated(tx, queryString, indexName, aggregationField, queryVersion)
        return {"cardinality": len({(one.value, one.kind) for one in terms})}

    def get_percentiles(self, tx: Tx, *, queryString: str, indexName: str | None = None,
                        aggregationField: str | None = None, queryVersion: str | None = None,
                        percents: list[float] | None = None) -> dict[str, Any]:  # fmt: skip
        wanted = aggregation.DEFAULT_PERCENTS if percents is None else percents
        if not all(math.isfinite(one) and 0 <= one <= 100 for one in wanted):
            raise invalid("percents must be between 0 and 100")
        terms = self._aggregated(tx, queryString, indexName, aggregationField, queryVersion)
        return {"percentiles": aggregation.percentiles(terms, wanted)}

    def get_buckets_aggregation(self, tx: Tx, *, queryString: str, aggregationField: str,
                                bucketsAggregationType: dict[str, Any], indexName: str | None = None,
                                queryVersion: str | None = None) -> dict[str, Any]:  # fmt: skip
        kind = bucketsAggregationType.get("termsAggregation")
        if kind is None:
            raise invalid("bucketsAggregationType needs termsAggregation")
        most = kind.get("maxBuckets", DEFAULT_BUCKETS)
        if not 1 <= most <= MAX_BUCKETS:
            raise invalid(f"maxBuckets must be between 1 and {MAX_BUCKETS}, not {most}")
        terms = self._aggregated(tx, queryString, indexName, aggregationField, queryVersion)
        total = self._index.count(tx, _query(queryString, indexName, queryVersion))
        return {"totalCount": total, "buckets": aggregation.buckets(terms, most)}

    def describe_index(self, tx: Tx, *, indexName: str) -> dict[str, Any]:
        _check_index(indexName)
        return {"indexName": INDEX, "indexStatus": "ACTIVE", "schema": "MULTI_INDEXING_MODE"}

    def list_indices(self, tx: Tx, *, nextToken: str | None = None, maxResults: int | None = None) -> dict[str, Any]:
        return {"indexNames": [INDEX]}

    def get_indexing_configuration(self, tx: Tx) -> dict[str, Any]:
        names = [row[0] for row in tx.all("SELECT DISTINCT shadow_name FROM shadows WHERE shadow_name <> ''"
                                          " AND deleted_at IS NULL ORDER BY shadow_name")]  # fmt: skip
        return {
            "thingIndexingConfiguration": {
                "thingIndexingMode": "REGISTRY_AND_SHADOW",
                "thingConnectivityIndexingMode": "STATUS",
                "deviceDefenderIndexingMode": "OFF",
                "namedShadowIndexingMode": "ON",
                "managedFields": [{"name": name, "type": kind} for name, kind in _MANAGED],
                "customFields": [],
                "filter": {"namedShadowNames": names},
            },
            "thingGroupIndexingConfiguration": {"thingGroupIndexingMode": "OFF"},
        }

    def get_thing_connectivity_data(self, tx: Tx, *, thingName: str,
                                    includeSocketInformation: bool = False) -> dict[str, Any]:  # fmt: skip
        if things.get(tx, thingName) is None:
            raise not_found(f"Thing {thingName} cannot be found.")
        shown = {"thingName": thingName, **documents.connectivity(tx, thingName)}
        if "timestamp" in shown:
            shown["timestamp"] /= 1000  # a timestamp of the model: seconds, where the index has milliseconds
            shown.setdefault("disconnectReason", "NONE")
        else:
            shown["disconnectReason"] = "UNKNOWN"
        if includeSocketInformation and shown["connected"]:
            row = tx.one("SELECT source_ip, source_port FROM connectivity WHERE client_id = ?", (shown["clientId"],))
            if row is not None:
                shown["sourceIp"], shown["sourcePort"] = row["source_ip"], row["source_port"]
        return shown

    def _aggregated(self, tx: Tx, text: str, index_name: str | None, field: str | None,
                    version: str | None) -> list[Term]:  # fmt: skip
        """The values of the aggregation field. Any indexed field will do, where the service wants it declared first."""
        node = _query(text, index_name, version)
        field = _MANAGED_ALIASES.get(field, field) if field is not None else "registry.version"
        if not _AGGREGATED_ONLY.fullmatch(field) and not query.is_indexed(field):
            raise ApiError("InvalidAggregationException", f"The field '{field[:100]}' is not indexed", 400)
        return self._index.terms_of(tx, node, field)


def _query(text: str, index_name: str | None, version: str | None) -> Node:
    if index_name is not None:
        _check_index(index_name)
    if version is not None and version != QUERY_VERSION:
        raise invalid(f"queryVersion must be {QUERY_VERSION}")
    if not text.strip():
        raise invalid("queryString is required")
    return query.parse(text)


def _check_index(name: str) -> None:
    if name != INDEX:
        raise not_found(f"Index {name} does not exist")
