-- upkeep.stage: when to look again.
SELECT due FROM task WHERE state = 0 AND due < 9007199254740991 ORDER BY due, seq LIMIT 1
