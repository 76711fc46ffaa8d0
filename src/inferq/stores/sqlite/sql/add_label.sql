-- arrivals: what a new task can be found by.
INSERT INTO label (name, value, seq)
VALUES (?, ?, ?)
