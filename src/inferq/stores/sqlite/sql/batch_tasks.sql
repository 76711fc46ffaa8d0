-- batches.settle towards drop: any tasks of a batch.
SELECT seq, state, bytes, id FROM task WHERE batch = ? LIMIT ?
