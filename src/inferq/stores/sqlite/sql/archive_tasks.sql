-- archive.lines: every task in the order of arrival with all that is its own; those of a batch that is being removed go with it.
SELECT t.seq, t.id, t.state, f.lane, f.priority, f.size, f.tenant, t.estimate, p.spec, k.digest, b.id, t.attempt, t.failures, t.lost,
    t.created, t.due, t.delay, t.expires, t.started, t.finished, t.code, t.error, t.backend, t.remote, r.body, t.at_most_once, b.held, b.reason, b.sealed
FROM task AS t JOIN flow AS f ON f.id = t.flow JOIN payload AS p ON p.seq = t.seq
LEFT JOIN result AS r ON r.seq = t.seq AND t.state = 3
LEFT JOIN idempotency AS k ON k.seq = t.seq
LEFT JOIN batch AS b ON b.number = t.batch
WHERE b.aim IS NOT 'drop' ORDER BY t.seq
