"""The same queue for programs without an event loop: an asynchronous one on a loop of its own, in a background thread."""
