-- arrivals: the hot row of each new task of the group.
INSERT INTO task (seq, id, flow, state, action, estimate, at_most_once, due, expires, created, bytes, batch)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
