-- Schedules are kept under their names, those of a tenant under the tenant's and theirs.
UPDATE record SET id = json_extract(CAST(body AS TEXT), '$.task.tenant') || '/' || id
WHERE kind = 'schedule' AND coalesce(json_extract(CAST(body AS TEXT), '$.task.tenant'), '') <> '';
