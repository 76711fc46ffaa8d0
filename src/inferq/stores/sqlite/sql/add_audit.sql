-- audit.add
INSERT INTO audit (at, who, key, tenant, method, route, targets, status, code, request) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
