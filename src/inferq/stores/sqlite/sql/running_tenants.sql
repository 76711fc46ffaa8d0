-- limits.running: the tenant of every running task.
SELECT flow.tenant FROM task JOIN flow ON flow.id = task.flow WHERE task.state = 2
