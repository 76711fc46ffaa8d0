-- limits.running: the tenant of every running task that counts as one's; messages of webhooks are nobody's.
SELECT flow.tenant FROM task JOIN flow ON flow.id = task.flow WHERE task.state = 2 AND flow.lane NOT GLOB 'webhook/*'
