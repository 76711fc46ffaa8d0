-- archive.restore: a batch before its tasks come; it is sealed when they are there.
INSERT INTO batch (id, name, tenant, source, digest, metadata, created, finished, held, reason, lines, total, completed, failed,
    cancelled, pruned, input_tokens, output_tokens, sealed)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
