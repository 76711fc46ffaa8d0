-- arrivals: what it was asked.
INSERT INTO payload (seq, spec) VALUES (?, ?)
