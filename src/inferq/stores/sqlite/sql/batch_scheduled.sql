-- batches.settle: waiting tasks outside their flows, after a place, with the time they were submitted for.
SELECT t.seq, t.flow, t.bytes, t.id, t.due, json_extract(CAST(p.spec AS TEXT), '$.scheduled_at')
FROM task AS t JOIN payload AS p ON p.seq = t.seq
WHERE t.batch = ? AND t.state = 0 AND t.seq > ? ORDER BY t.seq LIMIT ?
