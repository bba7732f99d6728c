CREATE OR REPLACE FUNCTION workerd.forget_changes() RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH gone AS (
        DELETE FROM workerd.audit a USING (SELECT id, at FROM workerd.audit ORDER BY id LIMIT 10000) oldest
        WHERE a.id = oldest.id AND oldest.at < now() - interval '90 days' RETURNING 1)
    SELECT count(*) FROM gone
$$;

REVOKE EXECUTE ON FUNCTION workerd.forget_changes FROM PUBLIC;

COMMENT ON FUNCTION workerd.forget_changes IS
    'Deletes audit records that are older than 90 days, the oldest first, and returns how many. Runs with the '
    'rights of the schema''s owner.';
