-- reads.records: a page of a kind, by id.
SELECT kind, id, version, body, created, updated FROM record WHERE kind = ? AND id > ? ORDER BY id LIMIT ?
