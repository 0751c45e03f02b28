-- What sidecars read: one row by primary key for each part of a request.

CREATE OR REPLACE VIEW sark_pdp.users AS
SELECT
    id,
    email,
    role,
    roles,
    ARRAY(SELECT team_id FROM sark_registry.team_members WHERE user_id = users.id ORDER BY team_id) AS teams,
    permissions,
    active
FROM sark_registry.users;

CREATE OR REPLACE VIEW sark_pdp.servers AS
SELECT
    id,
    name,
    owner_id,
    team_id,
    team_id AS managed_by_team,
    visibility,
    environment,
    sensitivity_level,
    status
FROM sark_registry.servers;

CREATE OR REPLACE VIEW sark_pdp.tools AS
SELECT
    id,
    server_id,
    name,
    sensitivity_level,
    owner,
    managers,
    team_id AS team,
    active
FROM sark_registry.tools;
