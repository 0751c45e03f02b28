"""A small registry in PostgreSQL, and tables of another program that `db migrate --registry` puts its views over."""

import psycopg
import pytest
from click.testing import CliRunner, Result

from sark_pdp.cli import main

ROWS = """
INSERT INTO sark_registry.teams VALUES ('red', 'Red'), ('blue', 'Blue');
INSERT INTO sark_registry.users (id, email, role) VALUES ('ann', 'ann@x', 'viewer'), ('bob', 'bob@x', 'viewer');
INSERT INTO sark_registry.team_members VALUES ('ann', 'red');
INSERT INTO sark_registry.servers (id, name, owner_id, team_id) VALUES
    ('s1', 'one', 'ann', 'red'), ('s2', 'two', 'bob', 'blue');
INSERT INTO sark_registry.tools (id, server_id, name, owner) VALUES
    ('t1', 's1', 'read', 'bob'), ('t2', 's2', 'run', NULL);
"""

SARK = """
CREATE TYPE sensitivity AS ENUM ('LOW', 'MEDIUM', 'HIGH', 'CRITICAL');
CREATE TYPE server_status AS ENUM ('REGISTERED', 'ACTIVE');
CREATE TABLE users (
    id uuid PRIMARY KEY, email varchar(255) NOT NULL UNIQUE, hashed_password varchar(255), role varchar(50) NOT NULL,
    is_active boolean NOT NULL, extra_metadata json NOT NULL DEFAULT '{}'
);
CREATE TABLE teams (id uuid PRIMARY KEY, name varchar(255) UNIQUE);
CREATE TABLE user_teams (
    user_id uuid REFERENCES users ON DELETE CASCADE, team_id uuid REFERENCES teams ON DELETE CASCADE
);
CREATE TABLE mcp_servers (
    id uuid PRIMARY KEY, name varchar(255) NOT NULL, sensitivity_level sensitivity NOT NULL,
    status server_status NOT NULL, owner_id uuid REFERENCES users ON DELETE SET NULL,
    team_id uuid REFERENCES teams ON DELETE SET NULL, tags json NOT NULL DEFAULT '[]'
);
CREATE TABLE mcp_tools (
    id uuid PRIMARY KEY, server_id uuid NOT NULL REFERENCES mcp_servers ON DELETE CASCADE, name varchar(255) NOT NULL,
    sensitivity_level sensitivity NOT NULL, managers json, invocation_count integer NOT NULL DEFAULT 0
);
INSERT INTO users VALUES ('10000000-0000-0000-0000-000000000001', 'ann@example.com', 'secret', 'developer', true);
INSERT INTO teams VALUES ('20000000-0000-0000-0000-000000000002', 'payments');
INSERT INTO user_teams VALUES ('10000000-0000-0000-0000-000000000001', '20000000-0000-0000-0000-000000000002');
INSERT INTO mcp_servers VALUES (
    '30000000-0000-0000-0000-000000000003', 'files', 'HIGH', 'ACTIVE', '10000000-0000-0000-0000-000000000001',
    '20000000-0000-0000-0000-000000000002'
);
INSERT INTO mcp_tools VALUES (
    '40000000-0000-0000-0000-000000000004', '30000000-0000-0000-0000-000000000003', 'read_file', 'LOW', '["ann", "bob"]'
);
"""
"""What SARK's own tables look like, as far as it matters, with a row in each."""


def db(*arguments: str, **environment: str) -> Result:
    """`sark-pdp db`, in this process."""
    return CliRunner().invoke(main, ["db", *arguments], env=environment)


def migrated(dsn: str, *arguments: str) -> Result:
    """`sark-pdp db migrate --registry`, which must succeed."""
    result = db("migrate", "--registry", "--dsn", dsn, *arguments)
    assert result.exit_code == 0, result.stderr
    return result


def add_rows(dsn: str, rows: str = ROWS) -> str:
    """Runs the statements; returns the DSN."""
    with psycopg.connect(dsn) as connection:
        connection.execute(rows.encode())
    return dsn


@pytest.fixture
def small_registry(registry: str) -> str:
    """The DSN of a registry of two users, servers and tools."""
    return add_rows(registry)
