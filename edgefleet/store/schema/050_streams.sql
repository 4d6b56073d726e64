-- SPDX-License-Identifier: Apache-2.0
-- Streams: numbered files of the object store that devices fetch block by block (aws-iot-protocol.md section 10).
CREATE TABLE streams (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    stream_id TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    description TEXT,
    role_arn TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);

-- size and modified_ns are those at the time the file was named in the stream: a changed object is not served.
CREATE TABLE stream_files (
    stream_id TEXT NOT NULL REFERENCES streams (stream_id) ON DELETE CASCADE,
    file_id INTEGER NOT NULL,
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    size INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,
    PRIMARY KEY (stream_id, file_id)
) WITHOUT ROWID;
