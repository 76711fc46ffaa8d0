-- upkeep.stage after the wall clock may have gone back: a retry never lies further ahead than its own delay.
UPDATE task INDEXED BY task_due SET due = ? WHERE state = 0 AND delay IS NOT NULL AND due > ? + delay
