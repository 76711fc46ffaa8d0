-- transaction.flush: the last task of a sealed batch ended in this transaction.
UPDATE batch SET finished = ? WHERE number = ?
