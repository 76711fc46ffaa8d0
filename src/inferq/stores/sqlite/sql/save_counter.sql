-- transaction.flush: counters move by delta.
UPDATE counter SET tasks = tasks + ?, bytes = bytes + ? WHERE state = ?
