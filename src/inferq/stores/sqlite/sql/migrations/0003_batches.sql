-- Batches: many tasks under one name. The counts of a batch move with the state of its tasks, whoever changes that and why, so that they
-- cannot disagree; tasks of no batch pay for nothing but the comparison.
CREATE TABLE batch (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT,
    tenant TEXT NOT NULL,
    source TEXT NOT NULL,
    digest TEXT NOT NULL,
    metadata BLOB NOT NULL,
    created INTEGER NOT NULL,
    sealed INTEGER,
    finished INTEGER,
    held INTEGER NOT NULL DEFAULT 0,
    reason TEXT,
    aim TEXT CHECK (aim IN ('hold', 'let', 'cancel', 'drop')),
    place INTEGER NOT NULL DEFAULT 0,
    lines INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0,
    waiting INTEGER NOT NULL DEFAULT 0 CHECK (waiting >= 0),
    running INTEGER NOT NULL DEFAULT 0 CHECK (running >= 0),
    completed INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    pruned INTEGER NOT NULL DEFAULT 0,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    CHECK (finished IS NULL OR sealed IS NOT NULL)
) STRICT;
CREATE UNIQUE INDEX batch_name ON batch (tenant, name) WHERE name IS NOT NULL;
CREATE INDEX batch_source ON batch (source, number);
CREATE INDEX batch_ended ON batch (number) WHERE sealed IS NOT NULL AND finished IS NULL AND waiting = 0 AND running = 0;
CREATE INDEX batch_aim ON batch (number) WHERE aim IS NOT NULL;
CREATE INDEX batch_held ON batch (number) WHERE held = 1;
CREATE INDEX batch_gone ON batch (finished) WHERE finished IS NOT NULL AND pruned >= total;

CREATE TABLE batch_line (
    batch INTEGER NOT NULL,
    line INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    id TEXT NOT NULL,
    key TEXT,
    PRIMARY KEY (batch, line)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX batch_key ON batch_line (batch, key) WHERE key IS NOT NULL;

CREATE INDEX task_batch ON task (batch, state, seq) WHERE batch IS NOT NULL;

INSERT INTO meta (name, value) VALUES ('batches', 0);

CREATE TRIGGER task_of_batch_moved AFTER UPDATE OF state ON task WHEN NEW.batch IS NOT NULL AND NEW.state <> OLD.state
BEGIN
    UPDATE batch SET
        waiting = waiting + (NEW.state < 2) - (OLD.state < 2),
        running = running + (NEW.state = 2) - (OLD.state = 2),
        completed = completed + (NEW.state = 3) - (OLD.state = 3),
        failed = failed + (NEW.state = 4) - (OLD.state = 4),
        cancelled = cancelled + (NEW.state = 5) - (OLD.state = 5),
        finished = CASE WHEN NEW.state < 3 THEN NULL ELSE finished END
    WHERE number = NEW.batch;
END;

CREATE TRIGGER task_of_batch_gone AFTER DELETE ON task WHEN OLD.batch IS NOT NULL
BEGIN
    UPDATE batch SET
        pruned = pruned + (OLD.state > 2),
        total = total - (OLD.state <= 2),
        waiting = waiting - (OLD.state < 2),
        running = running - (OLD.state = 2)
    WHERE number = OLD.batch;
END;
