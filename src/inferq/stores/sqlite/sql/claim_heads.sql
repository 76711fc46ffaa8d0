-- claims.claim over many flows: fences the heads that were popped.
UPDATE task SET state = 2, attempt = attempt + 1, token = ?, worker = ?, started = ?, backend = ?, remote = ?
WHERE seq IN (?)
