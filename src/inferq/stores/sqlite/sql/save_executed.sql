-- transaction.flush: what backends have completed moves by delta.
INSERT INTO executed (backend, remote, tasks) VALUES (?, ?, ?)
ON CONFLICT (backend, remote) DO UPDATE SET tasks = tasks + excluded.tasks
