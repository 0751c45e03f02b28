-- Finds servers by a part of their name.

CREATE EXTENSION IF NOT EXISTS pg_trgm;
DO $$
BEGIN
    -- The extension lives where it was created first.
    EXECUTE format(
        'CREATE INDEX servers_name_trigram ON sark_registry.servers USING gin (name %I.gin_trgm_ops)',
        (SELECT nspname FROM pg_namespace JOIN pg_extension ON extnamespace = pg_namespace.oid
         WHERE extname = 'pg_trgm')
    );
END
$$;
