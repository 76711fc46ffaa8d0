-- store.heads: every non-empty flow.
SELECT id, lane, priority, size, tenant, head, length FROM flow WHERE length > 0
