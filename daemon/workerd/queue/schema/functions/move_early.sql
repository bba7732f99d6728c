CREATE OR REPLACE FUNCTION workerd.move_early(a_from int, a_to int, a_before timestamptz, a_ageing double precision, a_pos bigint[]) RETURNS int
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    low int := (SELECT l.priority FROM workerd.lane l WHERE l.id = a_from);
    high int := (SELECT l.priority FROM workerd.lane l WHERE l.id = a_to);
    moved int;
BEGIN
    WITH early AS MATERIALIZED (
        SELECT w.pos FROM workerd.ready w WHERE w.lane = a_from AND w.pos = ANY (a_pos)
            AND CASE WHEN a_ageing IS NULL THEN w.options ? 'prefer' AND w.queued_at <= a_before
            ELSE w.queued_at <= a_before - make_interval(secs => a_ageing * (high - coalesce((w.options ->> 'aged')::int, low))) END),
    gone AS (DELETE FROM workerd.ready r USING early WHERE r.lane = a_from AND r.pos = early.pos RETURNING r.*),
    put AS (
        INSERT INTO workerd.ready (lane, id, attempt, failures, crashes, max_retries, task, key, enqueued_at, queued_at, payload, attempts, options)
        SELECT a_to, id, attempt, failures, crashes, max_retries, task, key, enqueued_at, queued_at, payload, attempts,
            CASE WHEN a_ageing IS NULL THEN nullif(options - 'prefer', '{}') ELSE jsonb_build_object('aged', low) || coalesce(options, '{}') END
        FROM gone ORDER BY pos)
    SELECT count(*) INTO moved FROM gone;
    RETURN moved;
END $$;

COMMENT ON FUNCTION workerd.move_early IS
    'Moves those of the given queued jobs that have waited long enough to another lane, and returns how many. The '
    'caller has locked the first lane; no lease holds the jobs.';
