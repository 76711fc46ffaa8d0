-- transaction.flush: sealed batches of which nothing waits or runs any more.
SELECT number, id, completed, failed, cancelled FROM batch
WHERE sealed IS NOT NULL AND finished IS NULL AND waiting = 0 AND running = 0 ORDER BY number LIMIT 1000
