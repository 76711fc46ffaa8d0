-- reads.record and records.put, drop: one record.
SELECT kind, id, version, body, created, updated FROM record WHERE kind = ? AND id = ?
