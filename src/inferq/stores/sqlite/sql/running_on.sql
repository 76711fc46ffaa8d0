-- reads.executed: where the running attempts are made.
SELECT backend, remote FROM task WHERE state = 2
