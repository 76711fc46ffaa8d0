-- claims.claim over many flows: these heads, each with the task that follows it in its flow, as one JSON text (see claimable.sql).
SELECT CAST(group_concat(
    '[' || t.seq || ',"' || t.id || '",' || t.estimate || ',' || t.attempt || ',' || t.failures || ',' || t.lost || ',' || t.created
    || ',' || t.bytes || ',' || CAST(p.spec AS TEXT) || ','
    || coalesce((SELECT n.seq FROM task AS n INDEXED BY task_ready WHERE n.flow = t.flow AND n.state = 1 AND n.seq > t.seq ORDER BY n.seq LIMIT 1), 'null')
    || ']'
) AS BLOB)
FROM task AS t JOIN payload AS p ON p.seq = t.seq
WHERE t.seq IN (?)
