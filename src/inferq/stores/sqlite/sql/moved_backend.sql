-- finishing.finish: an attempt that went on to another backend.
UPDATE task SET backend = ?, remote = ? WHERE seq = ?
