CREATE OR REPLACE FUNCTION workerd.decide(a_children bigint[], a_node bigint, a_ttl double precision) RETURNS void
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    go bigint[];
    never bigint[];
    batches bigint[];
    ended bigint[];
BEGIN
    -- counted only where the first open parent does not decide already
    SELECT array_agg(id) FILTER (WHERE NOT batch AND go), array_agg(id) FILTER (WHERE NOT batch AND never), array_agg(id) FILTER (WHERE batch AND open = 0)
    INTO go, never, batches FROM (
        SELECT c.id, c.batch, e.open,
            CASE c.need WHEN 'all' THEN e.good = e.n ELSE e.good > 0 END AS go,
            CASE c.need WHEN 'all' THEN e.bad > 0 ELSE e.bad = e.n END AS never
        FROM (SELECT s.id, s.options ? 'batch' AS batch, s.options -> 'after' ->> 0 AS need, s.options -> 'after' ->> 1 AS ends FROM workerd.scheduled s
            WHERE s.id = ANY (a_children) AND s.waits = 'jobs' FOR UPDATE) c,
        LATERAL (SELECT count(*) AS n, count(*) FILTER (WHERE d.ended IS NULL) AS open,
            count(*) FILTER (WHERE d.ended = 'succeeded' OR c.ends = 'finished' AND d.ended IS NOT NULL) AS good,
            count(*) FILTER (WHERE d.ended <> 'succeeded' AND c.ends = 'succeeded') AS bad
            FROM workerd.dependency d WHERE d.child = c.id) e) decided;
    UPDATE workerd.scheduled s SET waits = NULL, run_at = greatest(s.run_at, now()) WHERE s.id = ANY (go) AND s.waits = 'jobs';
    WITH gone AS (DELETE FROM workerd.scheduled s WHERE s.id = ANY (never) AND s.waits = 'jobs' RETURNING *),
    unlocked AS (DELETE FROM workerd.key k USING gone g WHERE g.key IS NOT NULL AND k.key = g.key AND k.id = g.id),
    kept AS (
        INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, max_retries, enqueued_at, queued_at, task, key, payload,
            attempts, options, error)
        SELECT id, workerd.expiry(a_ttl), lane, 'cancelled', attempt, failures, crashes, max_retries, enqueued_at, run_at, task, key, payload, attempts, options,
            (SELECT format('job %s, which it waits for, %s', d.parent, CASE d.ended WHEN 'failed' THEN 'failed' ELSE 'was cancelled' END)
                FROM workerd.dependency d WHERE d.child = g.id AND d.ended <> 'succeeded' LIMIT 1)
        FROM gone g)
    SELECT array_agg(id) INTO ended FROM gone;
    PERFORM workerd.tell_children(ended, 'cancelled');
    WITH gone AS (DELETE FROM workerd.scheduled s WHERE s.id = ANY (batches) AND s.waits = 'jobs' RETURNING *),
    unlocked AS (DELETE FROM workerd.key k USING gone g WHERE g.key IS NOT NULL AND k.key = g.key AND k.id = g.id),
    kept AS (
        INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, max_retries, node, enqueued_at, queued_at, started_at,
            task, key, payload, options, progress, result)
        SELECT id, workerd.expiry(a_ttl), lane, 'succeeded', 1, 0, 0, max_retries, a_node, enqueued_at, run_at, now(), task, key, payload, options, 1,
            (SELECT jsonb_build_object('jobs', count(*), 'succeeded', count(*) FILTER (WHERE d.ended = 'succeeded'),
                'failed', count(*) FILTER (WHERE d.ended = 'failed'), 'cancelled', count(*) FILTER (WHERE d.ended = 'cancelled'))
                FROM workerd.dependency d WHERE d.child = g.id)
        FROM gone g)
    SELECT array_agg(id) INTO ended FROM gone;
    PERFORM workerd.tell_children(ended, 'succeeded');
END $$;

COMMENT ON FUNCTION workerd.decide IS
    'Decides about jobs that wait for others, for settle.';
