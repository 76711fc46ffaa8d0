-- writer.begin: after others have committed, does this instance still count as alive?
SELECT 1 FROM instance WHERE number = ?
