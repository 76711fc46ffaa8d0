-- store.open: this process, new at each opening.
INSERT INTO instance (name, boot, lease) VALUES (?, ?, ?)
