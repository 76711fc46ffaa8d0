-- batch_reads.counts: by the rules of `Batch.state`, from the index alone: cancelled, finished, paused, running, open.
SELECT
    coalesce(sum(reason IS NOT NULL), 0),
    coalesce(sum(reason IS NULL AND finished IS NOT NULL), 0),
    coalesce(sum(reason IS NULL AND finished IS NULL AND held), 0),
    coalesce(sum(reason IS NULL AND finished IS NULL AND NOT held AND sealed IS NOT NULL), 0),
    coalesce(sum(reason IS NULL AND finished IS NULL AND NOT held AND sealed IS NULL), 0)
FROM batch WHERE aim IS NOT 'drop'
