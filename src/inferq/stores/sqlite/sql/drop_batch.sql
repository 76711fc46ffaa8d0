-- batches.drop: from now on nobody finds it; its name is free.
UPDATE batch SET aim = 'drop', name = NULL, place = 0, held = 0, sealed = coalesce(sealed, ?) WHERE number = ?
