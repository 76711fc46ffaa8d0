-- batches.settle towards hold: tasks that still stand in their flows.
SELECT seq, flow, bytes FROM task WHERE batch = ? AND state = 1 ORDER BY seq LIMIT ?
