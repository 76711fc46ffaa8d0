-- batches.settle towards drop: a bite of its lines.
DELETE FROM batch_line WHERE batch = ? AND line IN (SELECT line FROM batch_line WHERE batch = ? ORDER BY line LIMIT ?)
