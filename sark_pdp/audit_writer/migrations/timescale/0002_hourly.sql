-- Up to where the writers had the hours counted that have ended; TimescaleDB's own policy counts them an hour later.
CREATE TABLE audit_hourly_state (upto timestamptz NOT NULL);
INSERT INTO audit_hourly_state VALUES ('0001-01-01 00:00:00+00');
