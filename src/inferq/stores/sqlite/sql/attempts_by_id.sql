-- reads.attempts.
SELECT a.number, a.outcome, a.worker, a.started, a.ended, a.backend, a.code, a.error, a.input_tokens, a.output_tokens, a.remote, a.tried
FROM task AS t JOIN attempt AS a ON a.task = t.seq WHERE t.id = ? ORDER BY a.number
