-- What triggers tell the publisher with: the channel sark_pdp_changes, payloads of JSON below the 8000 bytes that
-- NOTIFY takes. An entry is the id of a user or a server; of a tool its id, its server's id and its name.

CREATE SCHEMA IF NOT EXISTS sark_pdp;

CREATE OR REPLACE FUNCTION sark_pdp.notify_changed(kind text, changed jsonb[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    head CONSTANT text := '{"kind": ' || to_json(kind)::text || ', "changed": [';
    entries text := '';
    entry text;
BEGIN
    -- One statement that changes so much is told of as a change of everything of its kind.
    IF cardinality(changed) > 1000 OR EXISTS (SELECT FROM unnest(changed) AS each WHERE octet_length(each::text) > 7000)
    THEN
        PERFORM pg_notify('sark_pdp_changes', json_build_object('kind', kind, 'all', true)::text);
        RETURN;
    END IF;
    FOREACH entry IN ARRAY coalesce(changed, '{}')::text[] LOOP
        IF entries <> '' AND octet_length(entries) + octet_length(entry) > 7500 THEN
            PERFORM pg_notify('sark_pdp_changes', head || entries || ']}');
            entries := '';
        END IF;
        entries := entries || CASE WHEN entries = '' THEN '' ELSE ', ' END || entry;
    END LOOP;
    IF entries <> '' THEN
        PERFORM pg_notify('sark_pdp_changes', head || entries || ']}');
    END IF;
END
$$;
