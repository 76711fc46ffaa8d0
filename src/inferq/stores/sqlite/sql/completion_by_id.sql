-- reads.attempts: the attempt that completed a task.
SELECT t.attempt, t.started, t.finished, r.body FROM task AS t JOIN result AS r ON r.seq = t.seq WHERE t.id = ? AND t.state = 3
