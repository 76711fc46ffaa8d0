-- records.put: guarded by the look at its version in the same transaction.
INSERT INTO record (kind, id, version, body, created, updated) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (kind, id) DO UPDATE SET version = excluded.version, body = excluded.body, updated = excluded.updated
