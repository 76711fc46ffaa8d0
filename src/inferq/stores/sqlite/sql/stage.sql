-- upkeep.stage: due tasks, oldest due first.
SELECT seq, id, flow FROM task WHERE state = 0 AND due <= ? ORDER BY due, seq LIMIT ?
