-- transaction.flush: the high-water marks.
UPDATE meta SET value = seen.column2
FROM (VALUES (?, ?)) AS seen
WHERE meta.name = seen.column1
