-- SPDX-License-Identifier: Apache-2.0
-- Things, types, static groups, certificates and policies (aws-iot-protocol.md section 7). Times are epoch seconds.
CREATE TABLE thing_types (
    name TEXT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    properties TEXT NOT NULL,       -- JSON, thingTypeProperties as the API gave them
    created_at REAL NOT NULL,
    deprecated_at REAL              -- NULL while things may get the type
) WITHOUT ROWID;

CREATE TABLE things (
    name TEXT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    type_name TEXT REFERENCES thing_types (name),
    attributes TEXT NOT NULL,       -- JSON object of strings
    version INTEGER NOT NULL,
    created_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX things_by_type ON things (type_name, name) WHERE type_name IS NOT NULL;

CREATE TABLE thing_groups (
    name TEXT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    parent TEXT REFERENCES thing_groups (name),
    properties TEXT NOT NULL,       -- JSON, thingGroupProperties as the API gave them
    version INTEGER NOT NULL,
    created_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX thing_groups_by_parent ON thing_groups (parent, name);

CREATE TABLE thing_group_members (
    group_name TEXT NOT NULL REFERENCES thing_groups (name) ON DELETE CASCADE,
    thing_name TEXT NOT NULL REFERENCES things (name) ON DELETE CASCADE,
    PRIMARY KEY (group_name, thing_name)
) WITHOUT ROWID;
CREATE INDEX thing_group_members_by_thing ON thing_group_members (thing_name, group_name);

CREATE TABLE certificates (
    id TEXT PRIMARY KEY,            -- SHA-256 of the DER form, hex
    pem TEXT NOT NULL,
    status TEXT NOT NULL,           -- ACTIVE, INACTIVE, REVOKED, PENDING_ACTIVATION
    not_before REAL NOT NULL,
    not_after REAL NOT NULL,
    created_at REAL NOT NULL,
    modified_at REAL NOT NULL,
    version INTEGER NOT NULL,       -- customerVersion
    generation_id TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX certificates_by_age ON certificates (created_at, id);

CREATE TABLE thing_principals (
    thing_name TEXT NOT NULL REFERENCES things (name),
    certificate_id TEXT NOT NULL REFERENCES certificates (id),
    exclusive INTEGER NOT NULL,
    PRIMARY KEY (thing_name, certificate_id)
) WITHOUT ROWID;
CREATE INDEX thing_principals_by_certificate ON thing_principals (certificate_id, thing_name);

CREATE TABLE policies (
    name TEXT PRIMARY KEY,
    default_version INTEGER NOT NULL,
    last_version INTEGER NOT NULL,  -- numbers are never used twice
    created_at REAL NOT NULL,
    modified_at REAL NOT NULL,
    generation_id TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE policy_versions (
    policy_name TEXT NOT NULL REFERENCES policies (name) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    document TEXT NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (policy_name, version)
) WITHOUT ROWID;

-- What a policy is attached to. The owner of the target row removes these rows with it.
CREATE TABLE policy_targets (
    kind TEXT NOT NULL,             -- 'cert' or 'thinggroup'
    target TEXT NOT NULL,           -- certificate id or group name
    policy_name TEXT NOT NULL REFERENCES policies (name),
    PRIMARY KEY (kind, target, policy_name)
) WITHOUT ROWID;
CREATE INDEX policy_targets_by_policy ON policy_targets (policy_name, kind, target);
