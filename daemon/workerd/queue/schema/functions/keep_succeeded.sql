CREATE OR REPLACE FUNCTION workerd.keep_succeeded(
    a_node bigint, a_n bigint, a_lane int, a_tickets int8multirange, k_n bigint[], k_pos bigint[], k_ran double precision[],
    k_result text[], k_ttl double precision[], k_progress real[], a_moment timestamptz
) RETURNS int
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    moved int;
    freed int;
    parents bigint[];
BEGIN
    WITH gone AS MATERIALIZED (
        DELETE FROM workerd.ready r USING unnest(k_n, k_pos, k_ran, k_result, k_ttl, k_progress) AS d(n, pos, ran, result, ttl, progress)
        WHERE d.n = a_n AND a_tickets @> d.pos AND r.lane = a_lane AND r.pos = d.pos
        RETURNING r.*, d.ran, d.result, d.ttl, d.progress),
    days AS MATERIALIZED (SELECT t.ttl, workerd.expiry(t.ttl) AS expires_on FROM (SELECT DISTINCT u FROM unnest(k_ttl) u WHERE u > 0) AS t(ttl)),
    kept AS (
        INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, max_retries, progress, node, enqueued_at,
            queued_at, started_at, finished_at, task, key, payload, result, attempts, options)
        SELECT g.id, days.expires_on, g.lane, 'succeeded', g.attempt + 1, g.failures, g.crashes, g.max_retries, g.progress, a_node,
            g.enqueued_at, g.queued_at, a_moment - make_interval(secs => g.ran), a_moment, g.task, g.key, g.payload, g.result::jsonb, g.attempts, nullif(g.options - 'limited', '{}')
        FROM gone g JOIN days ON days.ttl = g.ttl),
    unlocked AS (DELETE FROM workerd.key k USING gone g WHERE g.key IS NOT NULL AND k.key = g.key AND k.id = g.id),
    told AS (DELETE FROM workerd.progress p USING gone g WHERE g.progress IS NOT NULL AND p.id = g.id)
    SELECT count(*), count(*) FILTER (WHERE g.options ? 'limited'), CASE WHEN workerd.has_children() THEN array_agg(g.id) END
    INTO moved, freed, parents FROM gone g;
    IF freed > 0 THEN
        PERFORM workerd.wake_leader();
    END IF;
    IF parents IS NOT NULL THEN
        PERFORM workerd.tell_children(parents, 'succeeded');
    END IF;
    RETURN moved;
END $$;

COMMENT ON FUNCTION workerd.keep_succeeded IS
    'Writes the successful jobs of one lease to the history, as far as they leave a row behind. The caller has '
    'locked the lease. Returns how many jobs there were.';
