-- records.put: the highest version that a dropped record of this kind had.
SELECT version FROM record_floor WHERE kind = ?
