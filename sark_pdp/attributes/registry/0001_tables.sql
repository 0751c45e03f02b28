-- The registry, for those who have none: who there is, in which teams, and which servers offer which tools.
-- What sidecars read of it is in the views of schema sark_pdp.

CREATE SCHEMA sark_registry;

CREATE TABLE sark_registry.teams (
    id text PRIMARY KEY CHECK (id <> ''),
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE sark_registry.users (
    id text PRIMARY KEY CHECK (id <> ''),
    email text NOT NULL,
    role text NOT NULL,
    roles text[] NOT NULL DEFAULT '{}',
    permissions text[] NOT NULL DEFAULT '{}',
    active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX users_email ON sark_registry.users (email);
CREATE INDEX users_role_where_active ON sark_registry.users (role) WHERE active;

CREATE TABLE sark_registry.team_members (
    user_id text NOT NULL REFERENCES sark_registry.users ON UPDATE CASCADE ON DELETE CASCADE,
    team_id text NOT NULL REFERENCES sark_registry.teams ON UPDATE CASCADE ON DELETE CASCADE,
    PRIMARY KEY (user_id, team_id)
);
CREATE INDEX team_members_team ON sark_registry.team_members (team_id);

CREATE TABLE sark_registry.servers (
    id text PRIMARY KEY CHECK (id <> ''),
    name text NOT NULL,
    owner_id text REFERENCES sark_registry.users ON UPDATE CASCADE ON DELETE SET NULL,
    team_id text REFERENCES sark_registry.teams ON UPDATE CASCADE ON DELETE SET NULL,
    visibility text NOT NULL DEFAULT 'internal' CHECK (visibility IN ('public', 'internal', 'private')),
    environment text NOT NULL DEFAULT 'production',
    sensitivity_level text NOT NULL DEFAULT 'medium'
        CHECK (sensitivity_level IN ('low', 'medium', 'high', 'critical')),
    status text NOT NULL DEFAULT 'registered'
        CHECK (status IN ('registered', 'active', 'inactive', 'unhealthy', 'decommissioned')),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX servers_name ON sark_registry.servers (name);
CREATE INDEX servers_status ON sark_registry.servers (status);
CREATE INDEX servers_owner ON sark_registry.servers (owner_id);
CREATE INDEX servers_team ON sark_registry.servers (team_id);
CREATE INDEX servers_team_where_active ON sark_registry.servers (team_id, status) WHERE status = 'active';

CREATE TABLE sark_registry.tools (
    id text PRIMARY KEY CHECK (id <> ''),
    server_id text NOT NULL REFERENCES sark_registry.servers ON UPDATE CASCADE ON DELETE CASCADE,
    name text NOT NULL CHECK (name <> ''),
    -- NULL: that of the server counts.
    sensitivity_level text CHECK (sensitivity_level IN ('low', 'medium', 'high', 'critical')),
    owner text REFERENCES sark_registry.users ON UPDATE CASCADE ON DELETE SET NULL,
    managers text[] NOT NULL DEFAULT '{}',
    team_id text REFERENCES sark_registry.teams ON UPDATE CASCADE ON DELETE SET NULL,
    active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (server_id, name)
);
CREATE INDEX tools_name ON sark_registry.tools (name);
CREATE INDEX tools_sensitivity ON sark_registry.tools (sensitivity_level);
CREATE INDEX tools_owner ON sark_registry.tools (owner);
CREATE INDEX tools_team_where_active ON sark_registry.tools (team_id) WHERE active;
