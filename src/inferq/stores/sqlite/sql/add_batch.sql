-- batches.create.
INSERT INTO batch (id, name, tenant, source, digest, metadata, created) VALUES (?, ?, ?, ?, ?, ?, ?)
