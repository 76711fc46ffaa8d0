-- batches.add_lines: which task a line became.
INSERT INTO batch_line (batch, line, seq, id, key)
VALUES (?, ?, ?, ?, ?)
