-- SPDX-License-Identifier: Apache-2.0
-- The broker: who is connected, persistent sessions with what waits for them, retained messages.

-- One row a client id, kept after the disconnect. The will is kept so that it is published even if this process dies.
CREATE TABLE connectivity (
    client_id TEXT PRIMARY KEY,
    thing_name TEXT,
    certificate_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    connected INTEGER NOT NULL,
    timestamp_ms INTEGER NOT NULL,  -- of the last change of `connected`
    connected_ms INTEGER NOT NULL,
    disconnect_reason TEXT,         -- NULL while connected
    version INTEGER NOT NULL,
    keep_alive INTEGER NOT NULL,    -- seconds, the effective value
    clean_session INTEGER NOT NULL,
    source_ip TEXT NOT NULL,
    source_port INTEGER NOT NULL,
    will_topic TEXT,
    will_payload BLOB,
    will_qos INTEGER,
    will_retain INTEGER
);
CREATE INDEX connectivity_thing ON connectivity (thing_name) WHERE thing_name IS NOT NULL;
CREATE INDEX connectivity_connected ON connectivity (connected, timestamp_ms);

CREATE TABLE broker_session (
    client_id TEXT PRIMARY KEY,
    session_id TEXT NOT NULL,
    disconnected_at REAL            -- NULL while connected
);

CREATE TABLE broker_subscription (
    client_id TEXT NOT NULL,
    filter TEXT NOT NULL,
    qos INTEGER NOT NULL,
    PRIMARY KEY (client_id, filter)
) WITHOUT ROWID;

-- A message is stored once however many sessions wait for it. Ids grow in the order of arrival.
CREATE TABLE broker_message (
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    retain INTEGER NOT NULL,
    expires_at REAL NOT NULL
);
CREATE INDEX broker_message_expiry ON broker_message (expires_at);

CREATE TABLE broker_queue (
    client_id TEXT NOT NULL,
    message_id INTEGER NOT NULL,
    PRIMARY KEY (client_id, message_id)
) WITHOUT ROWID;
CREATE INDEX broker_queue_message ON broker_queue (message_id);

CREATE TABLE retained (
    topic TEXT PRIMARY KEY,
    payload BLOB NOT NULL,
    qos INTEGER NOT NULL,
    modified_ms INTEGER NOT NULL
);
