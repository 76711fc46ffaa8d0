-- writer.refresh: batches whose waiting tasks are held.
SELECT id, number FROM batch WHERE held = 1
