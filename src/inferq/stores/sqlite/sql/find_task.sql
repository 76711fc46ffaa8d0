-- changes.cancel, reprioritize, retry: where does it stand?
SELECT seq, flow, state, attempt, started, bytes, worker, batch FROM task WHERE id = ?
