-- claims.claim: all waiting tasks of a flow up to a sequence number; fences them with a fresh token.
UPDATE task INDEXED BY task_ready SET state = 2, attempt = attempt + 1, token = ?, worker = ?, started = ?, backend = ?, remote = ?
WHERE flow = ? AND state = 1 AND seq <= ?
