-- reads.result.
SELECT r.body FROM task AS t JOIN result AS r ON r.seq = t.seq WHERE t.id = ? AND t.state = 3
