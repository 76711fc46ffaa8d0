-- audit.add: a bite of what is too old.
DELETE FROM audit WHERE number IN (SELECT number FROM audit ORDER BY number LIMIT ?) AND at < ?
