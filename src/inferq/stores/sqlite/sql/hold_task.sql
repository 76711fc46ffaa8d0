-- batches.settle: a waiting task is due never.
UPDATE task SET state = 0, due = 9007199254740991, delay = NULL WHERE seq IN (?)
