-- claims.claim: has an earlier attempt written, so that this one begins with a reset record?
SELECT 1 FROM chunk WHERE task = ? LIMIT 1
