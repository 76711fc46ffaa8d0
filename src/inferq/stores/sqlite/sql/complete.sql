-- verbs.finish: guarded by the check before it in the same transaction.
UPDATE task SET state = 3, token = NULL, worker = NULL, finished = ?, bytes = bytes + ?, code = NULL, error = NULL WHERE seq = ?
