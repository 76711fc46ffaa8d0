-- transaction.rehead: the first waiting task of a flow.
SELECT seq FROM task INDEXED BY task_ready WHERE flow = ? AND state = 1 ORDER BY seq LIMIT 1
