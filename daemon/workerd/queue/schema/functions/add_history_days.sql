CREATE OR REPLACE FUNCTION workerd.add_history_days(a_ttls double precision[]) RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    d date;
    part text;
BEGIN
    FOR d IN
        SELECT DISTINCT (now() AT TIME ZONE 'UTC' + make_interval(secs => ttl))::date + ahead
        FROM unnest(a_ttls) ttl, generate_series(1, 3) ahead
        EXCEPT SELECT day FROM workerd.history_day ORDER BY 1
    LOOP
        -- attached afterwards: that takes a lock which lets others read and write the parent
        part := 'history_' || to_char(d, 'YYYYMMDD');
        EXECUTE format('CREATE TABLE workerd.%I (LIKE workerd.history INCLUDING ALL)', part);
        EXECUTE format('ALTER TABLE workerd.history ATTACH PARTITION workerd.%I FOR VALUES FROM (%L) TO (%L)', part, d, d + 1);
        INSERT INTO workerd.history_day VALUES (d);
    END LOOP;
END $$;

REVOKE EXECUTE ON FUNCTION workerd.add_history_days FROM PUBLIC;

COMMENT ON FUNCTION workerd.add_history_days IS
    'Makes the history''s partitions for jobs that finish within the next two days with one of these TTLs '
    '(seconds). Runs with the rights of the schema''s owner.';
