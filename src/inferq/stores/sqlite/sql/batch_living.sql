-- batches.settle towards cancel: tasks of a state that have not ended.
SELECT id FROM task WHERE batch = ? AND state = ? ORDER BY seq LIMIT ?
