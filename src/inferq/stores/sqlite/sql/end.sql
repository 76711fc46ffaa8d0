-- finishing.finish, changes.cancel, upkeep: a task's end without result.
UPDATE task SET state = ?, token = NULL, worker = NULL, due = NULL, delay = NULL, finished = ?, code = ?, error = ?, lost = lost + ? WHERE seq = ?
