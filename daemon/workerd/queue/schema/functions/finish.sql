CREATE OR REPLACE FUNCTION workerd.finish(
    a_node bigint, a_n bigint[], a_pos bigint[], a_outcome text[], a_result text[], a_error text[], a_delay double precision[],
    a_ran double precision[], a_ttl double precision[], a_progress real[], a_fingerprint text[] DEFAULT NULL
) RETURNS int[]
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    owned int[];
    moved int;
    freed int;
    parents jsonb;  -- state: ids
    noticed bigint[];  -- those that have failed for good and whose task wants that to be told
    kept_until date[];
    moment timestamptz := clock_timestamp();  -- one for all rows, so that their order is that of their starts
BEGIN
    -- whatever is not foreseen below would leave a job in no table
    IF EXISTS (SELECT FROM unnest(a_outcome, a_ttl) AS d(outcome, ttl)
            WHERE (d.outcome IN ('succeeded', 'failed', 'cancelled', 'retry', 'snooze', 'returned') AND d.ttl IS NOT NULL) IS NOT TRUE) THEN
        RAISE EXCEPTION 'an end has no known outcome, or no time for which it is kept' USING ERRCODE = '22023';
    END IF;
    PERFORM FROM workerd.lease l WHERE l.node = a_node AND l.n = ANY (a_n) ORDER BY l.n FOR UPDATE;
    WITH own AS MATERIALIZED (
        SELECT d.*, l.lane, l.claimed_at,
            CASE WHEN d.outcome IN ('retry', 'snooze', 'returned') AND d.pos <@ l.cancel THEN 'cancelled' ELSE d.outcome END AS ends
        FROM unnest(a_n, a_pos, a_outcome, a_result, a_error, a_delay, a_ran, a_ttl, a_progress, a_fingerprint) WITH ORDINALITY
            AS d(n, pos, outcome, result, error, delay, ran, ttl, progress, fingerprint, place)
        JOIN workerd.lease l ON l.node = a_node AND l.n = d.n AND l.tickets @> d.pos),
    done AS MATERIALIZED (SELECT n, range_agg(int8range(pos, pos + 1)) AS tickets FROM own GROUP BY n),
    emptied AS (DELETE FROM workerd.lease l USING done WHERE l.node = a_node AND l.n = done.n AND l.tickets <@ done.tickets),
    shrunk AS (
        UPDATE workerd.lease l SET tickets = l.tickets - done.tickets FROM done
        WHERE l.node = a_node AND l.n = done.n AND NOT l.tickets <@ done.tickets),
    back AS (
        UPDATE workerd.ready r SET attempt = r.attempt + 1, attempts = workerd.with_attempt(r.attempts, r.attempt + 1,
            (SELECT name FROM workerd.node WHERE id = a_node), moment - make_interval(secs => own.ran), 'returned', own.error)
        FROM own WHERE own.ends = 'returned' AND r.lane = own.lane AND r.pos = own.pos RETURNING r.pos),
    gone AS (
        DELETE FROM workerd.ready r USING own WHERE own.ends <> 'returned' AND r.lane = own.lane AND r.pos = own.pos
        RETURNING r.*, own.ends, own.result, own.error, own.delay, own.ran, own.ttl, own.progress, own.fingerprint),
    days AS MATERIALIZED (SELECT ttl, workerd.expiry(ttl) AS expires_on FROM (SELECT DISTINCT ttl FROM gone WHERE ttl > 0 OR ends <> 'succeeded') t),
    kept AS (
        INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, max_retries, progress, node, enqueued_at,
            queued_at, started_at, task, key, payload, result, error, fingerprint, attempts, options)
        SELECT g.id, days.expires_on, g.lane, g.ends, g.attempt + 1, g.failures + (g.ends = 'failed')::int, g.crashes, g.max_retries, g.progress, a_node,
            g.enqueued_at, g.queued_at, moment - make_interval(secs => g.ran), g.task, g.key, g.payload, g.result::jsonb,
            CASE WHEN g.ends = 'failed' THEN coalesce(g.error, 'no reason was given') ELSE g.error END,
            CASE WHEN g.ends = 'failed' THEN g.fingerprint END, g.attempts, nullif(g.options - 'limited', '{}')
        FROM gone g JOIN days ON days.ttl = g.ttl WHERE g.ends IN ('failed', 'cancelled') OR g.ends = 'succeeded' AND g.ttl > 0),
    unlocked AS (DELETE FROM workerd.key k USING gone g WHERE g.key IS NOT NULL AND g.ends IN ('succeeded', 'failed', 'cancelled') AND k.key = g.key AND k.id = g.id),
    told AS (DELETE FROM workerd.progress p USING gone g WHERE g.progress IS NOT NULL AND p.id = g.id),
    again AS (  -- without a delay the usual one: a minute, after each further failure twice as long, up to an hour
        SELECT g.*, coalesce(g.delay, CASE g.ends WHEN 'retry' THEN least(60 * 2 ^ least(g.failures, 6), 3600) ELSE 60 END) AS wait,
            g.attempt + 1 AS spent, g.failures + (g.ends = 'retry')::int AS failed_so_far,
            workerd.with_attempt(g.attempts, g.attempt + 1, (SELECT name FROM workerd.node WHERE id = a_node),
                moment - make_interval(secs => g.ran), CASE g.ends WHEN 'retry' THEN 'failed' ELSE 'snoozed' END, g.error, g.fingerprint) AS log
        FROM gone g WHERE g.ends IN ('retry', 'snooze')),
    later AS (  -- a limited one has its turn anew, if only to be staged at once
        INSERT INTO workerd.scheduled (id, lane, run_at, attempt, failures, crashes, max_retries, task, key, enqueued_at, payload, attempts, options)
        SELECT id, lane, clock_timestamp() + make_interval(secs => wait), spent, failed_so_far, crashes, max_retries, task, key, enqueued_at, payload, log,
            nullif(options - 'limited', '{}')
        FROM again WHERE wait > 0 OR options ? 'limited'),
    at_once AS (
        INSERT INTO workerd.ready (id, lane, attempt, failures, crashes, max_retries, task, key, enqueued_at, payload, attempts, options)
        SELECT id, lane, spent, failed_so_far, crashes, max_retries, task, key, enqueued_at, payload, log, options
        FROM again WHERE wait <= 0 AND (options ? 'limited') IS NOT TRUE)
    SELECT array_agg(own.place::int ORDER BY own.place), (SELECT count(*) FROM gone) + (SELECT count(*) FROM back),
        (SELECT count(*) FROM gone g WHERE g.options ? 'limited'),
        CASE WHEN workerd.has_children() THEN (SELECT jsonb_object_agg(e.ends, e.ids) FROM (
            SELECT g.ends, jsonb_agg(g.id) AS ids FROM gone g WHERE g.ends IN ('succeeded', 'failed', 'cancelled') GROUP BY g.ends) e) END,
        (SELECT array_agg(g.id) FROM gone g WHERE g.ends = 'failed'
            AND g.task = ANY (ARRAY(SELECT t.name FROM workerd.task t WHERE t.on_failure IS NOT NULL))), (SELECT array_agg(days.expires_on) FROM days)
    INTO owned, moved, freed, parents, noticed, kept_until FROM own;
    IF freed > 0 THEN
        PERFORM workerd.wake_leader();
    END IF;
    IF moved IS DISTINCT FROM coalesce(cardinality(owned), 0) THEN
        RAISE EXCEPTION 'invariant broken: lease without ready row (% of %)', moved, cardinality(owned);
    END IF;
    IF parents IS NOT NULL THEN
        PERFORM workerd.tell_children(ARRAY(SELECT jsonb_array_elements(e.value)::bigint), e.key) FROM jsonb_each(parents) e;
    END IF;
    IF noticed IS NOT NULL THEN
        PERFORM workerd.notice(noticed, kept_until);
    END IF;
    RETURN coalesce(owned, '{}');
END $$;

COMMENT ON FUNCTION workerd.finish IS
    'Ends attempts of leases of one node. The arrays hold, element by element: the lease and the ticket, the '
    'outcome (succeeded, failed, cancelled, retry, snooze, returned), the result, the error, seconds until the next '
    'attempt, seconds since it started, seconds to keep the job (NULL or 0: not at all), the progress and the '
    'fingerprint of the error. Returns the places in the arrays that the node still owned; the others had been '
    'rescued and are dropped.';
