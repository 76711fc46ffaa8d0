-- claims.append: some chunks of an attempt in one row, `last` is the index of the last.
INSERT INTO chunk (task, attempt, last, body) VALUES (?, ?, ?, ?)
