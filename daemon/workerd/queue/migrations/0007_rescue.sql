-- The attempt of a job that was cancelled while its node died counts as well.

-- part: rescue
-- Takes back every lease whose node does not live, whenever it appeared. Jobs keep their ticket, so their place in line.
CREATE OR REPLACE FUNCTION workerd.rescue(a_max_leases int, a_max_crashes int, a_ttl double precision)
RETURNS TABLE (node_name text, id bigint, task text, failed boolean)
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    held workerd.lease;
    owner text;
    dropped bigint[];
    lost bigint[];
BEGIN
    FOR held IN
        SELECT * FROM workerd.lease l WHERE NOT EXISTS (SELECT FROM workerd.node d WHERE d.id = l.node AND d.dead_at IS NULL)
        ORDER BY l.node, l.n LIMIT a_max_leases FOR UPDATE SKIP LOCKED
    LOOP
        DELETE FROM workerd.lease l WHERE l.node = held.node AND l.n = held.n;
        owner := coalesce((SELECT d.name FROM workerd.node d WHERE d.id = held.node), held.node::text);
        -- whether it ran nobody knows: the attempt counts, as below
        dropped := array(SELECT workerd.positions(held.tickets * held.cancel));
        UPDATE workerd.ready r SET attempt = r.attempt + 1, crashes = r.crashes + 1, attempts = workerd.with_attempt(r.attempts, r.attempt + 1,
            owner, held.claimed_at, 'crashed', format('node %s died', owner))
        WHERE r.lane = held.lane AND r.pos = ANY (dropped);
        PERFORM workerd.drop_cancelled(held.lane, dropped, a_ttl);
        lost := array(SELECT workerd.positions(held.tickets - held.cancel));
        RETURN QUERY
        WITH gone AS (
            DELETE FROM workerd.ready r WHERE r.lane = held.lane AND r.pos = ANY (lost) AND r.crashes + 1 >= a_max_crashes RETURNING r.*),
        unlocked AS (DELETE FROM workerd.key k USING gone g WHERE g.key IS NOT NULL AND k.key = g.key AND k.id = g.id),
        kept AS (
            INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, max_retries, node, enqueued_at, queued_at,
                started_at, task, key, payload, error, attempts)
            SELECT g.id, workerd.expiry(a_ttl), g.lane, 'failed', g.attempt + 1, g.failures, g.crashes + 1, g.max_retries, held.node, g.enqueued_at, g.queued_at,
                held.claimed_at, g.task, g.key, g.payload, format('its node died %s times while it held the job, the last one was %s', g.crashes + 1, owner), g.attempts
            FROM gone g)
        SELECT owner, g.id, g.task, true FROM gone g;
        RETURN QUERY
        UPDATE workerd.ready r SET attempt = r.attempt + 1, crashes = r.crashes + 1, attempts = workerd.with_attempt(r.attempts, r.attempt + 1,
            owner, held.claimed_at, 'crashed', format('node %s died', owner))
        WHERE r.lane = held.lane AND r.pos = ANY (lost) RETURNING owner, r.id, r.task, false;
        PERFORM pg_notify('workerd', format('rewind %s %s', held.lane, lower(held.tickets)));
    END LOOP;
END $$;
