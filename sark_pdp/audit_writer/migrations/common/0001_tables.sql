-- Events that can never be stored as rows, with the reason.
CREATE TABLE audit_rejected (
    source text NOT NULL,
    sequence bigint NOT NULL,
    chain bytea NOT NULL,
    payload bytea NOT NULL,
    -- SQLSTATE of PostgreSQL's refusal; empty where the payload names no event.
    code text NOT NULL,
    reason text NOT NULL,
    rejected_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, sequence)
);

-- Copies of the events that say where a chain stands (source_started, audit_checkpoint, source_stopped). They outlive
-- the retention of the events.
CREATE TABLE audit_checkpoints (
    source text NOT NULL,
    sequence bigint NOT NULL,
    id uuid NOT NULL,
    "timestamp" timestamptz NOT NULL,
    event_type text NOT NULL,
    chain bytea NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (source, sequence, id)
);

-- Hours of which events came late, so that their counts are to be made anew. A row for each batch, and no unique hour:
-- neither the batches nor who counts then wait for one another.
CREATE TABLE audit_late_hours (
    id bigint GENERATED ALWAYS AS IDENTITY,
    hour timestamptz NOT NULL
);
