-- archive.lines: batches, with how many of their ended tasks retention has removed.
SELECT id, name, tenant, source, digest, metadata, created, finished, held, reason, lines,
    completed - (SELECT count(*) FROM task AS t WHERE t.batch = b.number AND t.state = 3),
    failed - (SELECT count(*) FROM task AS t WHERE t.batch = b.number AND t.state = 4),
    cancelled - (SELECT count(*) FROM task AS t WHERE t.batch = b.number AND t.state = 5),
    input_tokens, output_tokens,
    EXISTS (SELECT 1 FROM task AS t WHERE t.batch = b.number AND (t.state < 2 OR (t.state = 2 AND t.at_most_once = 0))),
    number, sealed
FROM batch AS b WHERE aim IS NOT 'drop' ORDER BY number
