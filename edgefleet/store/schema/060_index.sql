-- SPDX-License-Identifier: Apache-2.0
-- The fleet index: a read model that can be thrown away and rebuilt (aws-iot-protocol.md section 8).
CREATE TABLE index_things (
    id INTEGER PRIMARY KEY,
    thing_name TEXT NOT NULL UNIQUE,
    document TEXT NOT NULL
);

-- One row a value of a field. value: lower case; shown: as it was, where that differs; number: if it is one or looks
-- like one; kind: n(umber), s(tring), b(oolean) of the original; anywhere: found by a term without field.
CREATE TABLE index_terms (
    thing INTEGER NOT NULL REFERENCES index_things (id) ON DELETE CASCADE,
    field TEXT NOT NULL,
    value TEXT NOT NULL,
    shown TEXT,
    number REAL,
    kind TEXT NOT NULL,
    anywhere INTEGER NOT NULL,
    PRIMARY KEY (field, value, kind, thing)
) WITHOUT ROWID;

CREATE INDEX index_terms_by_thing ON index_terms (thing);
CREATE INDEX index_terms_by_number ON index_terms (field, number, thing) WHERE number IS NOT NULL;
CREATE INDEX index_terms_by_value ON index_terms (value, thing) WHERE anywhere = 1;
