-- finishing.finish: back to the waiting, now (state 1) or not before a time (state 0).
UPDATE task SET state = ?, token = NULL, worker = NULL, due = ?, delay = ?, failures = failures + ?, lost = lost + ?, code = ?, error = ?
WHERE seq = ?
