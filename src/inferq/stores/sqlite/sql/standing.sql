-- finishing.finish, claims.append: is the claim still the task's? Read inside the write transaction.
SELECT state, attempt, token, bytes FROM task WHERE seq = ?
