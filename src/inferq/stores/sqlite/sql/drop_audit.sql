-- audit.add: all but the newest.
DELETE FROM audit WHERE number <= ?
