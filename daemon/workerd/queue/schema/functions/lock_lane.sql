CREATE OR REPLACE FUNCTION workerd.lock_lane(a_lane int) RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock('workerd.lease'::regclass::oid::int, a_lane)
$$;

COMMENT ON FUNCTION workerd.lock_lane IS
    'Locks a lane until the transaction ends. Claims of a lane are serialised by this lock.';
