CREATE OR REPLACE FUNCTION workerd.wake(a_lane int) RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN pg_try_advisory_lock('workerd.queue'::regclass::oid::int, workerd.sleep_lock(a_lane))
        THEN NOT pg_advisory_unlock('workerd.queue'::regclass::oid::int, workerd.sleep_lock(a_lane)) ELSE pg_notify('workerd', 'ready') IS NOT NULL END
$$;

COMMENT ON FUNCTION workerd.wake IS
    'Wakes the claimers that sleep on a lane. Without a sleeper no notification is sent, because notifications of '
    'the whole server are serialised by one lock. The lock is taken and given back in one expression, which nothing '
    'interrupts: a lock that is left behind would keep claimers from sleeping.';
