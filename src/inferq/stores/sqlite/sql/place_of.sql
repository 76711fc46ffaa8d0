-- reads.ahead: where a waiting task stands.
SELECT t.seq, f.id, f.lane, f.priority FROM task AS t JOIN flow AS f ON f.id = t.flow WHERE t.id = ? AND t.state = 1
