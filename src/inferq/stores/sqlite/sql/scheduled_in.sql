-- limits.check_room: how many tasks of these flows wait for their time.
SELECT count(*) FROM task WHERE state = 0 AND flow IN (?)
