-- Where an attempt is made and of which sort that backend is; what it tried before; how much each backend has completed.
ALTER TABLE task ADD COLUMN backend TEXT;
ALTER TABLE task ADD COLUMN remote INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempt ADD COLUMN remote INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempt ADD COLUMN tried TEXT;

CREATE TABLE executed (
    backend TEXT NOT NULL,
    remote INTEGER NOT NULL,
    tasks INTEGER NOT NULL,
    PRIMARY KEY (backend, remote)
) STRICT, WITHOUT ROWID;
