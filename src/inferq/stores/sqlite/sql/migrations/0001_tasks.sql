-- The first schema. Integers are milliseconds where they are times; state is 0 scheduled, 1 pending, 2 running, 3 completed,
-- 4 failed, 5 cancelled. The hot table is narrow: what a task was asked and what it answered live apart.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta (name, value) VALUES ('seq', 0), ('version', 0), ('position', 0), ('chunks_3', 0), ('chunks_4', 0), ('chunks_5', 0);

CREATE TABLE counter (
    state INTEGER PRIMARY KEY CHECK (state BETWEEN 0 AND 5),
    tasks INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO counter (state) VALUES (0), (1), (2), (3), (4), (5);

CREATE TABLE instance (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    boot TEXT NOT NULL,
    lease INTEGER NOT NULL CHECK (lease > 0)
) STRICT;

CREATE TABLE flow (
    id INTEGER PRIMARY KEY,
    lane TEXT NOT NULL,
    priority INTEGER NOT NULL,
    size TEXT NOT NULL CHECK (size IN ('low', 'medium', 'long')),
    tenant TEXT NOT NULL,
    head INTEGER,
    length INTEGER NOT NULL DEFAULT 0 CHECK (length >= 0),
    version INTEGER NOT NULL DEFAULT 0,
    UNIQUE (lane, priority, size, tenant),
    CHECK ((length = 0) = (head IS NULL))
) STRICT;
CREATE INDEX flow_version ON flow (version);
CREATE INDEX flow_waiting ON flow (id) WHERE length > 0;

CREATE TABLE task (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    flow INTEGER NOT NULL REFERENCES flow (id),
    state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 5),
    action TEXT NOT NULL,
    estimate INTEGER NOT NULL,
    at_most_once INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    lost INTEGER NOT NULL DEFAULT 0,
    token INTEGER,
    worker INTEGER,
    due INTEGER,
    delay INTEGER,
    expires INTEGER,
    created INTEGER NOT NULL,
    started INTEGER,
    finished INTEGER,
    code TEXT,
    error TEXT,
    bytes INTEGER NOT NULL,
    CHECK ((state = 2) = (token IS NOT NULL)),
    CHECK ((state = 2) = (worker IS NOT NULL)),
    CHECK ((state = 0) = (due IS NOT NULL)),
    CHECK ((state >= 3) = (finished IS NOT NULL))
) STRICT;
CREATE INDEX task_ready ON task (flow, seq) WHERE state = 1;
CREATE INDEX task_due ON task (due, seq) WHERE state = 0;
CREATE INDEX task_running ON task (worker, seq) WHERE state = 2;
CREATE INDEX task_completed ON task (finished, seq) WHERE state = 3;
CREATE INDEX task_failed ON task (finished, seq) WHERE state = 4;
CREATE INDEX task_cancelled ON task (finished, seq) WHERE state = 5;
CREATE INDEX task_expires ON task (expires, seq) WHERE expires IS NOT NULL AND state < 2;

CREATE TABLE payload (
    seq INTEGER PRIMARY KEY,
    spec BLOB NOT NULL
) STRICT;

CREATE TABLE result (
    seq INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE idempotency (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    digest BLOB NOT NULL,
    seq INTEGER NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_seq ON idempotency (seq);

CREATE TABLE attempt (
    task INTEGER NOT NULL,
    number INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    worker TEXT NOT NULL,
    started INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    backend TEXT,
    code TEXT,
    error TEXT,
    input_tokens INTEGER,
    output_tokens INTEGER,
    PRIMARY KEY (task, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE chunk (
    task INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    last INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (task, attempt, last)
) STRICT, WITHOUT ROWID;

-- One row a commit: `position` is that of its last event, `body` a JSON array of all of them.
CREATE TABLE event (
    position INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE pause (
    scope TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- For people with a SQL prompt: states by name, flows spelled out.
CREATE VIEW tasks AS
SELECT
    task.seq, task.id,
    CASE task.state
        WHEN 0 THEN 'scheduled' WHEN 1 THEN 'pending' WHEN 2 THEN 'running'
        WHEN 3 THEN 'completed' WHEN 4 THEN 'failed' ELSE 'cancelled'
    END AS state,
    flow.lane, flow.priority, flow.size, flow.tenant, task.action, task.attempt, task.failures, task.lost,
    task.created, task.due, task.started, task.finished, task.code, task.error
FROM task JOIN flow ON flow.id = task.flow;
