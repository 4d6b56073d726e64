-- SPDX-License-Identifier: Apache-2.0
-- Device shadows, classic (shadow_name '') and named (aws-iot-protocol.md section 9). Sections and metadata are JSON
-- text, NULL where the section does not exist. A deleted shadow stays as a tombstone that keeps its version counter.
CREATE TABLE shadows (
    thing_name TEXT NOT NULL,
    shadow_name TEXT NOT NULL DEFAULT '',
    version INTEGER NOT NULL,
    desired TEXT,
    reported TEXT,
    desired_metadata TEXT,
    reported_metadata TEXT,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER,
    PRIMARY KEY (thing_name, shadow_name)
);
