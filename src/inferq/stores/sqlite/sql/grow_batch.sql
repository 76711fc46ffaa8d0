-- batches.add_lines: what came.
UPDATE batch SET total = total + ?, waiting = waiting + ?, lines = max(lines, ?), finished = NULL WHERE number = ?
