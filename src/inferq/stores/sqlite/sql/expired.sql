-- upkeep.expire: waiting tasks past their deadline.
SELECT seq, id, flow, state, attempt, bytes, batch FROM task
WHERE expires IS NOT NULL AND state < 2 AND expires <= ? ORDER BY expires, seq LIMIT ?
