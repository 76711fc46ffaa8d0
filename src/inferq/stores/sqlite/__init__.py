"""The embedded store: one SQLite file. Nothing outside this folder knows SQL."""
