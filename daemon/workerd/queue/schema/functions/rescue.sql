CREATE OR REPLACE FUNCTION workerd.rescue(a_max_leases int, a_max_crashes int, a_ttl double precision)
RETURNS TABLE (node_name text, id bigint, task text, failed boolean)
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    held workerd.lease;
BEGIN
    FOR held IN
        SELECT * FROM workerd.lease l WHERE NOT EXISTS (SELECT FROM workerd.node d WHERE d.id = l.node AND d.dead_at IS NULL)
        ORDER BY l.node, l.n LIMIT a_max_leases FOR UPDATE SKIP LOCKED
    LOOP
        DELETE FROM workerd.lease l WHERE l.node = held.node AND l.n = held.n;
        IF workerd.is_careful() THEN
            PERFORM workerd.sift(format('SELECT workerd.take_back(%L, $1, %s, %s)', held, a_max_crashes, a_ttl),
                ARRAY(SELECT workerd.positions(held.tickets)), held.lane);
        ELSE
            RETURN QUERY SELECT * FROM workerd.take_back(held, ARRAY(SELECT workerd.positions(held.tickets)), a_max_crashes, a_ttl);
        END IF;
        PERFORM pg_notify('workerd', format('rewind %s %s', held.lane, lower(held.tickets)));
    END LOOP;
END $$;

COMMENT ON FUNCTION workerd.rescue IS
    'Takes back every lease whose node is not alive, whenever the lease appeared. Jobs keep their ticket, and so '
    'their place in the queue. A job that crashed too often fails.';
