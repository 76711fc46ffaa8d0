-- batches: how a batch stands, inside a write transaction.
SELECT number, sealed, held, reason, aim, place, lines, waiting, running FROM batch WHERE id = ?
