CREATE OR REPLACE FUNCTION workerd.asked_now(a_options jsonb) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
    SELECT jsonb_build_array(a_options, (a_options -> 'deadline')::double precision - extract(epoch FROM clock_timestamp()))
$$;

COMMENT ON FUNCTION workerd.asked_now IS
    'Returns a job''s options as a claim reports them, with the seconds that are left until its deadline.';
