-- reads.chunks.
SELECT attempt, last, body FROM chunk WHERE task = ? AND (attempt, last) > (?, ?) ORDER BY attempt, last LIMIT ?
