-- reads.get: one task with everything it says of itself.
SELECT t.seq, t.id, t.state, f.lane, f.priority, f.size, f.tenant, t.estimate, t.attempt, t.failures, t.lost, i.name,
    t.due, t.created, t.started, t.finished, t.code, t.error, t.backend, t.remote, p.spec
FROM task AS t JOIN flow AS f ON f.id = t.flow JOIN payload AS p ON p.seq = t.seq LEFT JOIN instance AS i ON i.number = t.worker
WHERE t.id = ?
