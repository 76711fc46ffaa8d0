-- upkeep.prune: cancelled tasks whose stream logs are next to go.
SELECT seq, finished FROM task WHERE state = 5 AND finished > ? AND finished <= ? ORDER BY finished, seq LIMIT ?
