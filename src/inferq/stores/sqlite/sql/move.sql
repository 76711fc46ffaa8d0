-- changes.reprioritize: to another flow, keeping its sequence number.
UPDATE task SET flow = ? WHERE seq = ?
