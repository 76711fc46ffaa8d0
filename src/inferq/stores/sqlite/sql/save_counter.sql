-- transaction.flush: counters move by delta; rows are (state, tasks, bytes).
UPDATE counter SET tasks = tasks + seen.column2, bytes = bytes + seen.column3
FROM (VALUES (?, ?, ?)) AS seen
WHERE counter.state = seen.column1
