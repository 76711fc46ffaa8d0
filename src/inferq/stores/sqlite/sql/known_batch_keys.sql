-- batches.add_lines, batch_reads.keys: keys that are taken already.
SELECT key FROM batch_line WHERE batch = ? AND key IN (?)
