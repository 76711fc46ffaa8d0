-- batches.settle towards drop: any tasks of a batch.
SELECT seq, state, bytes FROM task WHERE batch = ? LIMIT ?
