CREATE OR REPLACE FUNCTION workerd.expiry(a_ttl double precision) RETURNS date LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce(
        (SELECT min(day) FROM workerd.history_day WHERE day > ((now() + make_interval(secs => a_ttl)) AT TIME ZONE 'UTC')::date),
        (SELECT max(day) FROM workerd.history_day));
END $$;

COMMENT ON FUNCTION workerd.expiry IS
    'Returns the day of the history''s partition for a job that may go after a_ttl seconds: the first partition '
    'that is not too early, or the last one.';
