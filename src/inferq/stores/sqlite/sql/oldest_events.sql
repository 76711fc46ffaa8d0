-- upkeep.prune: the beginning of the event log.
SELECT position, at FROM event ORDER BY position LIMIT ?
