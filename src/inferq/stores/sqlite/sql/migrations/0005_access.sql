-- Limits of tenants count what waits in their flows. The audit log: who changed what; never payloads.
CREATE INDEX task_scheduled ON task (flow) WHERE state = 0;

CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    key TEXT NOT NULL,
    tenant TEXT,
    method TEXT NOT NULL,
    route TEXT NOT NULL,
    targets TEXT NOT NULL,
    status INTEGER NOT NULL,
    code TEXT,
    request TEXT NOT NULL
) STRICT;
