-- verbs.claim: pops the first tasks of a flow that stand before the next flow's head; fences them with a fresh token.
UPDATE task SET state = 2, attempt = attempt + 1, token = ?, worker = ?, started = ?
WHERE seq IN (SELECT seq FROM task WHERE flow = ? AND state = 1 AND seq < ? ORDER BY seq LIMIT ?)
RETURNING seq, id, estimate, attempt, failures, lost, created, bytes
