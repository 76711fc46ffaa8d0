-- Pages that cost the same whatever the queue holds: tasks by flow, by final state, while scheduled and by failure code, each in
-- the order of arrival. `newest` is the latest instant that a task was created at, `step` by how much the clock ever went back
-- between two tasks (milliseconds): with both, a range of time is a range of sequence numbers.
CREATE INDEX task_flow ON task (flow, seq);
CREATE INDEX task_ended ON task (state, seq) WHERE state >= 3;
CREATE INDEX task_parked ON task (seq) WHERE state = 0;
CREATE INDEX task_code ON task (code, seq) WHERE code IS NOT NULL;

INSERT INTO meta (name, value) SELECT 'newest', coalesce(max(created), 0) FROM task;
INSERT INTO meta (name, value)
SELECT 'step', coalesce(max(latest - created), 0) FROM (SELECT created, max(created) OVER (ORDER BY seq) AS latest FROM task);
