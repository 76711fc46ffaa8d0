-- Records: small objects that change rarely, each with a version. Labels: what tasks can be found by. The batch a task belongs to.
CREATE TABLE record (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    body BLOB NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE label (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (name, value, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX label_seq ON label (seq);

-- Tasks of an older file find their tags in the submission.
INSERT OR IGNORE INTO label (name, value, seq)
SELECT 'tag', tag.value, payload.seq
FROM payload, json_each(CAST(payload.spec AS TEXT), '$.tags') AS tag;

ALTER TABLE task ADD COLUMN batch INTEGER;
