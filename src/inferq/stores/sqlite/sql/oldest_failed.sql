-- upkeep.prune: the failed tasks that ended first, and when the batch of each was finished. The state is literal so that its partial
-- index serves.
SELECT t.seq, t.finished, t.bytes, t.batch, b.finished
FROM task AS t LEFT JOIN batch AS b ON b.number = t.batch
WHERE t.state = 4 AND (t.finished, t.seq) > (?, ?) ORDER BY t.finished, t.seq LIMIT ?
