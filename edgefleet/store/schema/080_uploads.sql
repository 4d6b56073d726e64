-- SPDX-License-Identifier: Apache-2.0
-- Uploads by Basic Ingest: parts wait here until their bundle is complete.

CREATE TABLE upload_bundle (
    thing TEXT NOT NULL,
    bundle TEXT NOT NULL,
    parts INTEGER NOT NULL,
    complete INTEGER NOT NULL DEFAULT 0,
    updated REAL NOT NULL,          -- epoch seconds of the last part that came
    PRIMARY KEY (thing, bundle)
) WITHOUT ROWID;
CREATE INDEX upload_bundle_updated ON upload_bundle (updated);

-- Of a complete bundle only the digests stay for a while, so that a part that is delivered again is known.
CREATE TABLE upload_part (
    thing TEXT NOT NULL,
    bundle TEXT NOT NULL,
    part INTEGER NOT NULL,
    digest BLOB NOT NULL,           -- SHA-256
    size INTEGER NOT NULL,
    data BLOB,
    PRIMARY KEY (thing, bundle, part),
    FOREIGN KEY (thing, bundle) REFERENCES upload_bundle (thing, bundle) ON DELETE CASCADE
);
