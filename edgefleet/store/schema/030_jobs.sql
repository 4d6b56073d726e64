-- SPDX-License-Identifier: Apache-2.0
-- Jobs, their executions, and the things whose execution is not rolled out yet (aws-iot-protocol.md sections 3, 4).
-- Times are whole epoch seconds; configurations, targets and details are JSON text as the API gave them.
CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    target_selection TEXT NOT NULL,
    targets TEXT NOT NULL,
    document TEXT NOT NULL,
    document_source TEXT,
    description TEXT,
    presigned_config TEXT,
    timeout_config TEXT,
    abort_config TEXT,
    rollout_config TEXT,
    retry_config TEXT,
    reason_code TEXT,
    comment TEXT,
    force_canceled INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    completed_at INTEGER,
    -- Rollout: how many things were notified in all, and in the minute that began at `minute_at`.
    released INTEGER NOT NULL DEFAULT 0,
    minute_at INTEGER NOT NULL DEFAULT 0,
    minute_released INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX jobs_by_status ON jobs (status, sequence);

-- Targets resolved at creation and still waiting for their turn, in order.
CREATE TABLE job_waiting (
    job_id TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    thing_name TEXT NOT NULL,
    PRIMARY KEY (job_id, position)
) WITHOUT ROWID;

CREATE TABLE job_executions (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
    thing_name TEXT NOT NULL,
    number INTEGER NOT NULL,
    status TEXT NOT NULL,
    version INTEGER NOT NULL,
    details TEXT,
    queued_at INTEGER NOT NULL,
    started_at INTEGER,
    updated_at INTEGER NOT NULL,
    retry_attempt INTEGER NOT NULL DEFAULT 0,
    force_canceled INTEGER NOT NULL DEFAULT 0,
    progress_deadline INTEGER,
    step_deadline INTEGER,
    deadline INTEGER,
    -- Counts changes within the job: "most recently updated first", without ties.
    change INTEGER NOT NULL,
    UNIQUE (job_id, thing_name, number)
);

CREATE INDEX job_executions_pending ON job_executions (thing_name) WHERE status IN ('QUEUED', 'IN_PROGRESS');
CREATE INDEX job_executions_of_thing ON job_executions (thing_name, sequence);
CREATE INDEX job_executions_by_change ON job_executions (job_id, change);
CREATE INDEX job_executions_by_status ON job_executions (job_id, status, sequence);
CREATE INDEX job_executions_due ON job_executions (deadline) WHERE deadline IS NOT NULL;

-- Executions by status, kept with every change, so that abort and completion cost the same for ten and ten thousand.
CREATE TABLE job_counts (
    job_id TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
    status TEXT NOT NULL,
    executions INTEGER NOT NULL,
    PRIMARY KEY (job_id, status)
) WITHOUT ROWID;
