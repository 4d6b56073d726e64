-- SPDX-License-Identifier: Apache-2.0
-- Provisioning templates, certificates waiting for their device, bulk tasks (aws-iot-protocol.md section 6).
CREATE TABLE provisioning_templates (
    name TEXT PRIMARY KEY,
    description TEXT,
    enabled INTEGER NOT NULL,
    role_arn TEXT NOT NULL,
    default_version INTEGER NOT NULL,
    last_version INTEGER NOT NULL,  -- numbers are never used twice
    created_at REAL NOT NULL,
    modified_at REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE provisioning_template_versions (
    template_name TEXT NOT NULL REFERENCES provisioning_templates (name) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    body TEXT NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (template_name, version)
) WITHOUT ROWID;

-- The right to turn one pending certificate into a device. Only the hash is kept: who reads the file gets no token.
CREATE TABLE ownership_tokens (
    token_hash TEXT PRIMARY KEY,
    certificate_id TEXT NOT NULL UNIQUE REFERENCES certificates (id) ON DELETE CASCADE,
    expires_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX ownership_tokens_by_expiry ON ownership_tokens (expires_at);

CREATE TABLE registration_tasks (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    task_id TEXT NOT NULL UNIQUE,
    template_body TEXT NOT NULL,
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    role_arn TEXT NOT NULL,
    status TEXT NOT NULL,           -- InProgress, Cancelling, Completed, Cancelled, Failed
    message TEXT,
    created_at REAL NOT NULL,
    modified_at REAL NOT NULL,
    file_stamp TEXT NOT NULL,       -- tells whether the input is still the file the task began with
    file_size INTEGER NOT NULL,
    position INTEGER NOT NULL DEFAULT 0,    -- byte after the last line done
    lines INTEGER NOT NULL DEFAULT 0,       -- lines done
    successes INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    result_parts INTEGER NOT NULL DEFAULT 0,
    error_parts INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX registration_tasks_open ON registration_tasks (sequence) WHERE status IN ('InProgress', 'Cancelling');

-- Report lines that are not yet in a report file.
CREATE TABLE registration_reports (
    task_id TEXT NOT NULL REFERENCES registration_tasks (task_id) ON DELETE CASCADE,
    kind TEXT NOT NULL,             -- RESULTS or ERRORS
    line INTEGER NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (task_id, kind, line)
) WITHOUT ROWID;
