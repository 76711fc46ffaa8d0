-- reads.chunks: whose log, and is it at its end?
SELECT seq, state, attempt FROM task WHERE id = ?
