-- reads.events.
SELECT position, body FROM event WHERE position > ? ORDER BY position LIMIT ?
