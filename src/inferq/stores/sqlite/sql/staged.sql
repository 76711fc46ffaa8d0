-- upkeep.stage: it waits in its flow now.
UPDATE task SET state = 1, due = NULL, delay = NULL WHERE seq = ?
