-- changes.cancel: who runs a task, and where.
SELECT i.name, t.backend, t.remote FROM task AS t LEFT JOIN instance AS i ON i.number = t.worker WHERE t.seq = ?
