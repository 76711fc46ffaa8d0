-- archive.restore: a task as another store had it.
INSERT INTO task (seq, id, flow, state, action, estimate, at_most_once, attempt, failures, lost, due, delay, expires, created, started,
    finished, code, error, bytes, batch, backend, remote)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
