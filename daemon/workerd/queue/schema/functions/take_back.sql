CREATE OR REPLACE FUNCTION workerd.take_back(a_held workerd.lease, a_pos bigint[], a_max_crashes int, a_ttl double precision)
RETURNS TABLE (node_name text, id bigint, task text, failed boolean)
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    owner text;
    dropped bigint[];
    lost bigint[];
    failed_ids bigint[];
    failed_tasks text[];
    noticed bigint[];
BEGIN
    owner := coalesce((SELECT d.name FROM workerd.node d WHERE d.id = a_held.node), a_held.node::text);
    -- whether it ran nobody knows: the attempt counts, as below
    dropped := array(SELECT workerd.positions(workerd.set_of(a_pos) * a_held.cancel));
    UPDATE workerd.ready r SET attempt = r.attempt + 1, crashes = r.crashes + 1, attempts = workerd.with_attempt(r.attempts, r.attempt + 1,
        owner, a_held.claimed_at, 'crashed', format('node %s died', owner))
    WHERE r.lane = a_held.lane AND r.pos = ANY (dropped);
    PERFORM workerd.drop_cancelled(a_held.lane, dropped, a_ttl);
    lost := array(SELECT workerd.positions(workerd.set_of(a_pos) - a_held.cancel));
    WITH gone AS (
        DELETE FROM workerd.ready r WHERE r.lane = a_held.lane AND r.pos = ANY (lost) AND r.crashes + 1 >= a_max_crashes RETURNING r.*),
    unlocked AS (DELETE FROM workerd.key k USING gone g WHERE g.key IS NOT NULL AND k.key = g.key AND k.id = g.id),
    kept AS (
        INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, max_retries, node, enqueued_at, queued_at,
            started_at, task, key, payload, error, attempts, options)
        SELECT g.id, workerd.expiry(a_ttl), g.lane, 'failed', g.attempt + 1, g.failures, g.crashes + 1, g.max_retries, a_held.node, g.enqueued_at, g.queued_at,
            a_held.claimed_at, g.task, g.key, g.payload, format('its node died %s times while it held the job, the last one was %s', g.crashes + 1, owner), g.attempts, nullif(g.options - 'limited', '{}')
        FROM gone g)
    SELECT array_agg(g.id), array_agg(g.task), array_agg(g.id) FILTER (WHERE workerd.has_notice(g.task))
    INTO failed_ids, failed_tasks, noticed FROM gone g;
    RETURN QUERY SELECT owner, f.id, f.task, true FROM unnest(failed_ids, failed_tasks) AS f(id, task);
    IF failed_ids IS NOT NULL AND workerd.has_children() THEN
        PERFORM workerd.tell_children(failed_ids, 'failed');
    END IF;
    IF noticed IS NOT NULL THEN
        PERFORM workerd.notice(noticed, ARRAY[workerd.expiry(a_ttl)]);
    END IF;
    RETURN QUERY
    UPDATE workerd.ready r SET attempt = r.attempt + 1, crashes = r.crashes + 1, attempts = workerd.with_attempt(r.attempts, r.attempt + 1,
        owner, a_held.claimed_at, 'crashed', format('node %s died', owner))
    WHERE r.lane = a_held.lane AND r.pos = ANY (lost) RETURNING owner, r.id, r.task, false;
END $$;

COMMENT ON FUNCTION workerd.take_back IS
    'Takes back jobs of a dead node''s lease, and returns which of them crashed too often.';
