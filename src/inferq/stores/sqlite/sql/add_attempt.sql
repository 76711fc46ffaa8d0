-- finishing.finish, upkeep.rescue: the record of an ended attempt.
INSERT INTO attempt (task, number, outcome, worker, started, ended, backend, code, error, input_tokens, output_tokens, remote, tried)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
