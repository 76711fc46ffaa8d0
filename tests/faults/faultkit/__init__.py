"""The fault harness: child programs to kill, a recorded history, and the checker that judges it."""
