-- upkeep.prune: the failed tasks that ended first. The state is literal so that its partial index serves.
SELECT seq, id, finished, bytes FROM task WHERE state = 4 ORDER BY finished, seq LIMIT ?
