-- archive.lines: ended attempts of a task.
SELECT number, outcome, worker, started, ended, backend, code, error, input_tokens, output_tokens, remote, tried
FROM attempt WHERE task = ? ORDER BY number
