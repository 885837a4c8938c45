-- The record. Rows are added and never change; seq has no gaps.
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    kind TEXT NOT NULL,
    principal TEXT,
    pool TEXT,
    session TEXT,
    session_guid TEXT,
    execution TEXT,
    detail TEXT NOT NULL
) STRICT;

CREATE INDEX events_at ON events (at);
CREATE INDEX events_execution ON events (execution) WHERE execution IS NOT NULL;

CREATE TRIGGER events_no_update BEFORE UPDATE ON events
BEGIN SELECT RAISE (ABORT, 'the record is append-only'); END;

CREATE TRIGGER events_no_delete BEFORE DELETE ON events
BEGIN SELECT RAISE (ABORT, 'the record is append-only'); END;

-- REPLACE would delete without asking the trigger above.
CREATE TRIGGER events_no_replace BEFORE INSERT ON events WHEN EXISTS (SELECT 1 FROM events WHERE seq = NEW.seq)
BEGIN SELECT RAISE (ABORT, 'the record is append-only'); END;

-- Executions that have not been concluded, by the event of their intent: what is left here at a start ended with the server.
CREATE TABLE open_executions (
    execution TEXT PRIMARY KEY,
    seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- API keys. The secret itself is nowhere.
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    principal TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    roles TEXT NOT NULL,
    pools TEXT,
    created_at TEXT NOT NULL,
    expires_at TEXT,
    revoked_at TEXT,
    limits TEXT NOT NULL
) STRICT, WITHOUT ROWID;
