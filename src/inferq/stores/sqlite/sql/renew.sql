-- upkeep.renew: one row holds the lease of all claims of an instance.
UPDATE instance SET lease = ? WHERE number = ?
