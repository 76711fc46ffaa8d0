-- transaction.flush: the heads and lengths this group changed.
UPDATE flow SET head = ?, length = ?, version = ? WHERE id = ?
