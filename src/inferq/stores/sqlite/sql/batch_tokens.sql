-- transaction.flush: what the completed tasks of a batch used.
UPDATE batch SET input_tokens = input_tokens + ?, output_tokens = output_tokens + ? WHERE id = ?
