-- The highest version that a dropped record of each kind had: a new one begins past it, so that no version stands for two records.
CREATE TABLE record_floor (
    kind TEXT PRIMARY KEY,
    version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER record_dropped AFTER DELETE ON record
BEGIN
    INSERT INTO record_floor (kind, version) VALUES (OLD.kind, OLD.version)
    ON CONFLICT (kind) DO UPDATE SET version = max(version, excluded.version);
END;
