-- claims.claim: the first tasks of a flow that stand before the next flow's head, as one JSON text: a row each would hand the
-- interpreter's lock back and forth once a task. `spec` is JSON already; an id has no character that JSON would escape.
SELECT CAST(group_concat(
    '[' || seq || ',"' || id || '",' || estimate || ',' || attempt || ',' || failures || ',' || lost || ',' || created || ',' || bytes
    || ',' || spec || ']'
) AS BLOB)
FROM (
    SELECT t.seq, t.id, t.estimate, t.attempt, t.failures, t.lost, t.created, t.bytes, CAST(p.spec AS TEXT) AS spec
    FROM task AS t INDEXED BY task_ready JOIN payload AS p ON p.seq = t.seq
    WHERE t.flow = ? AND t.state = 1 AND t.seq < ?
    ORDER BY t.seq LIMIT ?
)
