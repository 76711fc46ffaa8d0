-- reads.waiting_deliveries: messages of webhooks that wait, now or for their time.
SELECT
    (SELECT coalesce(sum(length), 0) FROM flow WHERE lane >= 'webhook/' AND lane < 'webhook0')
    + (
        SELECT count(*) FROM task
        WHERE state = 0 AND flow IN (SELECT id FROM flow WHERE lane >= 'webhook/' AND lane < 'webhook0')
    )
