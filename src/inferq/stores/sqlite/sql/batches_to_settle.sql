-- batches.settle: which batches have tasks left that are not as they should be.
SELECT number, id, aim, place, reason FROM batch WHERE aim IS NOT NULL ORDER BY number LIMIT ?
