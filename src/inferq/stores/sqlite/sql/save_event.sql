-- transaction.flush: all events of the group in one row.
INSERT INTO event (position, at, body) VALUES (?, ?, ?)
