CREATE OR REPLACE FUNCTION workerd.shown(a_time timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN a_time >= '0001-01-01 00:00:00Z' AND a_time < '10000-01-01 00:00:00Z'
        THEN to_char(a_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"+00:00"') ELSE a_time::text END
$$;

COMMENT ON FUNCTION workerd.shown IS
    'Writes a time as lists show it: by ISO 8601, or, outside of its range, as PostgreSQL writes it.';
