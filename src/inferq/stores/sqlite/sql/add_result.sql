-- finishing.finish: what it answered.
INSERT OR REPLACE INTO result (seq, body) VALUES (?, ?)
