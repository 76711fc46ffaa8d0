-- reads.chunks: where the terminal record stands.
SELECT attempt, last FROM chunk WHERE task = ? ORDER BY attempt DESC, last DESC LIMIT 1
