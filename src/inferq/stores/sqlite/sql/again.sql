-- changes.retry: an ended task waits again with a fresh retry budget.
UPDATE task SET state = 1, failures = 0, lost = 0, expires = NULL, finished = NULL, code = NULL, error = NULL WHERE seq = ?
