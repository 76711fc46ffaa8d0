-- upkeep.stage: when to look again.
SELECT due FROM task WHERE state = 0 ORDER BY due, seq LIMIT 1
