-- upkeep.prune: finished batches of which retention has left no task.
SELECT number FROM batch WHERE finished IS NOT NULL AND pruned >= total AND finished < ? ORDER BY finished LIMIT ?
