-- batches.add_lines: numbers that are taken already, when the same lines come again.
SELECT line FROM batch_line WHERE batch = ? AND line BETWEEN ? AND ?
