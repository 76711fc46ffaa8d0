-- arrivals: was this key used, and with which body?
SELECT id, digest FROM idempotency WHERE tenant = ? AND key = ?
