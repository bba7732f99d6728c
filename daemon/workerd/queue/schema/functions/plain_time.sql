CREATE OR REPLACE FUNCTION workerd.plain_time(a_time timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN a_time > '0001-01-02' AND a_time < '9999-12-30' THEN a_time ELSE now() END
$$;

COMMENT ON FUNCTION workerd.plain_time IS
    'Returns a time that every client can read: the time itself, or the current one in its place.';
