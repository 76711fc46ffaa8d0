-- transaction.flow: a flow seen for the first time.
INSERT INTO flow (id, lane, priority, size, tenant) VALUES (?, ?, ?, ?, ?)
