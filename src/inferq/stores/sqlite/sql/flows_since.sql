-- transaction.begin: flows that other processes changed.
SELECT id, lane, priority, size, tenant, head, length, version FROM flow WHERE version > ?
