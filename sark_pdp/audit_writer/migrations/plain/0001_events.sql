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
) PARTITION BY RANGE ("timestamp");

CREATE INDEX audit_events_user ON audit_events (user_id, "timestamp" DESC);
CREATE INDEX audit_events_server ON audit_events (server_id, "timestamp" DESC);
CREATE INDEX audit_events_type ON audit_events (event_type, "timestamp" DESC);
-- For whoever asks for the newest, and for the counts of each hour.
CREATE INDEX audit_events_time ON audit_events ("timestamp" DESC);

-- Counts of all events before `upto`; what came late is in `audit_late_hours`.
CREATE TABLE audit_hourly_counts (
    hour timestamptz NOT NULL,
    event_type text NOT NULL,
    -- Empty where there is none.
    user_id text NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (hour, event_type, user_id)
);
CREATE TABLE audit_hourly_state (upto timestamptz NOT NULL);
INSERT INTO audit_hourly_state VALUES ('0001-01-01 00:00:00+00');
