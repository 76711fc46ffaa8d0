-- transaction.flush: the heads and lengths this group changed; rows are (flow, head, length, version).
UPDATE flow SET head = seen.column2, length = seen.column3, version = seen.column4
FROM (VALUES (?, ?, ?, ?)) AS seen
WHERE flow.id = seen.column1
