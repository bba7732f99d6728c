CREATE OR REPLACE FUNCTION workerd.drop_cancelled(a_lane int, a_pos bigint[], a_ttl double precision) RETURNS int
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    dropped int;
    parents bigint[];
    freed int;
BEGIN
    WITH gone AS (DELETE FROM workerd.ready r WHERE r.lane = a_lane AND r.pos = ANY (a_pos) RETURNING r.*),
    unlocked AS (DELETE FROM workerd.key k USING gone g WHERE g.key IS NOT NULL AND k.key = g.key AND k.id = g.id),
    kept AS (
        INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, max_retries, enqueued_at, queued_at, task, key, payload, attempts, options)
        SELECT id, workerd.expiry(a_ttl), lane, 'cancelled', attempt, failures, crashes, max_retries, enqueued_at, queued_at, task, key, payload, attempts,
            nullif(options - 'limited', '{}') FROM gone)
    SELECT count(*), CASE WHEN workerd.has_children() THEN array_agg(id) END, count(*) FILTER (WHERE options ? 'limited') INTO dropped, parents, freed FROM gone;
    IF parents IS NOT NULL THEN
        PERFORM workerd.tell_children(parents, 'cancelled');
    END IF;
    IF freed > 0 THEN
        PERFORM workerd.wake_leader();
    END IF;
    RETURN dropped;
END $$;

COMMENT ON FUNCTION workerd.drop_cancelled IS
    'Ends queued jobs as cancelled. The caller owns their lease row, or the lock of the lane while no lease holds '
    'them.';
