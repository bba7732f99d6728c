CREATE OR REPLACE FUNCTION workerd.seconds_since(a_time timestamptz) RETURNS double precision LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT CASE WHEN isfinite(a_time) THEN extract(epoch FROM clock_timestamp() - a_time)::double precision END
$$;

COMMENT ON FUNCTION workerd.seconds_since IS
    'Returns the seconds since a time; NULL for an infinite one.';
