-- batches.cancel: what its tasks must come to, and why.
UPDATE batch SET sealed = coalesce(sealed, ?), reason = ?, held = 0, aim = 'cancel', place = 0 WHERE number = ?
