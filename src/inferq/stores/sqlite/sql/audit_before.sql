-- audit.read: a page, newest first.
SELECT number, at, who, key, tenant, method, route, targets, status, code, request FROM audit
WHERE number < ? ORDER BY number DESC LIMIT ?
