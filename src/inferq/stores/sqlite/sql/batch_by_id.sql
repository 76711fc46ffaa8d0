-- batch_reads.get.
SELECT id, name, tenant, source, digest, metadata, created, sealed, finished, held, reason, lines, total, waiting, running, completed,
    failed, cancelled, pruned, input_tokens, output_tokens
FROM batch WHERE id = ?
