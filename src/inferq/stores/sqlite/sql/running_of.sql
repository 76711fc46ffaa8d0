-- upkeep.rescue: what a dead instance still held.
SELECT seq, id, flow, attempt, lost, at_most_once, started, bytes, backend, remote, batch FROM task WHERE state = 2 AND worker = ?
ORDER BY seq LIMIT ?
