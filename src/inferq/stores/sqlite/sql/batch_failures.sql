-- batch_reads.failures: by code, with an example.
SELECT code, count(*) AS number, min(error), min(id) FROM task WHERE batch = ? AND state = 4 GROUP BY code ORDER BY number DESC
