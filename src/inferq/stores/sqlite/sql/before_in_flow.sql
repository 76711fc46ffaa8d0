-- reads.ahead: how many of a flow stand before a sequence number, up to a bound.
SELECT count(*) FROM (SELECT 1 FROM task INDEXED BY task_ready WHERE flow = ? AND state = 1 AND seq < ? LIMIT ?)
