CREATE EXTENSION IF NOT EXISTS timescaledb;

-- 2.17.2 stopped silently at the first conflict of an INSERT into compressed chunks (timescaledb issue 7672).
DO $$
DECLARE
    installed text := (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb');
BEGIN
    IF string_to_array(split_part(installed, '-', 1), '.')::int[] < ARRAY[2, 18, 0] THEN
        RAISE EXCEPTION 'TimescaleDB % loses events; 2.18.0 or newer is needed', installed;
    END IF;
END
$$;

CREATE TABLE audit_events (
    id uuid NOT NULL,
    "timestamp" timestamptz NOT NULL,
    source text NOT NULL,
    sequence bigint NOT NULL,
    chain bytea NOT NULL,
    payload bytea NOT NULL,
    event_type text NOT NULL,
    severity text NOT NULL,
    user_id text,
    user_email text,
    server_id text,
    tool_name text,
    decision text,
    policy_id text,
    policy_revision text,
    ip_address inet,
    user_agent text,
    request_id text,
    details jsonb,
    PRIMARY KEY (id, "timestamp")
);

-- Makes the index on the time by itself.
SELECT create_hypertable('audit_events', by_range('timestamp', INTERVAL '1 day'));

CREATE INDEX audit_events_user ON audit_events (user_id, "timestamp" DESC);
CREATE INDEX audit_events_server ON audit_events (server_id, "timestamp" DESC);
CREATE INDEX audit_events_type ON audit_events (event_type, "timestamp" DESC);

ALTER TABLE audit_events SET (
    timescaledb.compress,
    timescaledb.compress_segmentby = 'user_id, event_type',
    timescaledb.compress_orderby = '"timestamp" DESC'
);

CREATE MATERIALIZED VIEW audit_events_hourly
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT time_bucket(INTERVAL '1 hour', "timestamp") AS hour, user_id, event_type, count(*) AS count
FROM audit_events
GROUP BY 1, 2, 3
WITH NO DATA;

SELECT add_compression_policy('audit_events', compress_after => INTERVAL '7 days');
SELECT add_retention_policy('audit_events', drop_after => INTERVAL '90 days');
SELECT add_retention_policy('audit_events_hourly', drop_after => INTERVAL '90 days');
SELECT add_continuous_aggregate_policy(
    'audit_events_hourly',
    start_offset => INTERVAL '3 hours',
    end_offset => INTERVAL '1 hour',
    schedule_interval => INTERVAL '1 hour'
);
