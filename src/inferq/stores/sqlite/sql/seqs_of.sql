-- archive.restore: which of these tasks are here.
SELECT id, seq FROM task WHERE id IN (?)
