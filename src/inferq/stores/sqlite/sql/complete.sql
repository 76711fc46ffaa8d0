-- finishing.finish: guarded by the check before it in the same transaction; rows are (seq, finished, bytes of the result).
UPDATE task SET state = 3, token = NULL, worker = NULL, code = NULL, error = NULL,
    finished = done.column2, bytes = bytes + done.column3
FROM (VALUES (?, ?, ?)) AS done
WHERE task.seq = done.column1
