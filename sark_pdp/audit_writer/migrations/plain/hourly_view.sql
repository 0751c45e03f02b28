CREATE OR REPLACE VIEW audit_events_hourly AS
SELECT hour, user_id, event_type, sum(count)::bigint AS count
FROM (
    SELECT hour, nullif(user_id, '') AS user_id, event_type, count FROM audit_hourly_counts
    UNION ALL
    SELECT date_trunc('hour', "timestamp", 'UTC'), user_id, event_type, count(*)
    FROM audit_events
    WHERE "timestamp" >= (SELECT upto FROM audit_hourly_state)
    GROUP BY 1, 2, 3
) AS counted
GROUP BY 1, 2, 3;
