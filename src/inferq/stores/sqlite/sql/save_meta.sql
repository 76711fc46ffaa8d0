-- transaction.flush: the high-water marks.
UPDATE meta SET value = ? WHERE name = ?
