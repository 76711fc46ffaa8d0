-- archive.restore: tasks of a batch came, each in its state.
UPDATE batch SET total = total + ?, waiting = waiting + ?, completed = completed + ?, failed = failed + ?, cancelled = cancelled + ?
WHERE number = ?
