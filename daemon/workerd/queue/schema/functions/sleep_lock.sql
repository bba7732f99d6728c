CREATE OR REPLACE FUNCTION workerd.sleep_lock(a_lane int) RETURNS int LANGUAGE sql IMMUTABLE AS $$
    SELECT a_lane & 63  -- two lanes may share one: that wakes a daemon in vain, and the server's table of locks stays small
$$;

COMMENT ON FUNCTION workerd.sleep_lock IS
    'Returns the advisory lock key that a claimer which found nothing holds, shared, for a lane while it sleeps. '
    'The lock goes with the session.';
