-- transaction.rehead: the first waiting task of a flow.
SELECT seq FROM task WHERE flow = ? AND state = 1 ORDER BY seq LIMIT 1
