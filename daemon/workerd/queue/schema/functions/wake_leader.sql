CREATE OR REPLACE FUNCTION workerd.wake_leader() RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN pg_try_advisory_lock('workerd.queue'::regclass::oid::int, 64)
        THEN NOT pg_advisory_unlock('workerd.queue'::regclass::oid::int, 64) ELSE pg_notify('workerd', 'admit') IS NOT NULL END
$$;

COMMENT ON FUNCTION workerd.wake_leader IS
    'Wakes the leader, which holds a shared lock while it sleeps. The key of the lock lies beyond those of the '
    'lanes.';
