-- arrivals: remembers an idempotency key in the transaction of its task.
INSERT INTO idempotency (tenant, key, digest, seq, id) VALUES (?, ?, ?, ?, ?)
