"""Groups of a door's methods (`queue.keys`, `queue.webhooks`, ...): the same here and over HTTP."""
