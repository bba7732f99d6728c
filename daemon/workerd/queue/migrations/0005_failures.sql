-- What failed alike is found by its fingerprint; what jobs log is kept; the list of a job's attempts stays small.

-- part: history: the fingerprint of a failure
SET LOCAL lock_timeout = '3s';
LOCK TABLE workerd.history IN SHARE UPDATE EXCLUSIVE MODE;
SET LOCAL lock_timeout = '100ms';
ALTER TABLE workerd.history ADD COLUMN fingerprint text;  -- NULL as well where its node died too often, or an older version wrote it

-- part: lines that jobs log, an attempt's by their number; kept as long as any job may be
CREATE TABLE workerd.job_log (
    id bigint NOT NULL,
    attempt int NOT NULL,
    line int NOT NULL,
    at timestamptz NOT NULL,
    level text NOT NULL CHECK (level IN ('debug', 'info', 'warning', 'error')),
    message text NOT NULL,
    PRIMARY KEY (id, attempt, line)
);
CREATE INDEX job_log_at ON workerd.job_log USING brin (at) WITH (pages_per_range = 16, autosummarize = on);

-- part: functions and the view of all jobs
-- One entry of a job's list of attempts; the list keeps the newest 20, and of each error its beginning and its end.
CREATE FUNCTION workerd.with_attempt(
    a_attempts jsonb, a_attempt int, a_node text, a_started timestamptz, a_outcome text, a_error text, a_fingerprint text,
    a_ended timestamptz DEFAULT NULL
) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN jsonb_array_length(v) > 20 THEN v - 0 ELSE v END
    FROM (SELECT coalesce(a_attempts, '[]') || jsonb_build_array(jsonb_build_object(
        'attempt', a_attempt, 'node', a_node, 'started_at', a_started, 'ended_at', coalesce(a_ended, clock_timestamp()), 'outcome', a_outcome,
        'error', CASE WHEN length(a_error) > 4000 THEN left(a_error, 1500) || E'\n[…]\n' || right(a_error, 2400) ELSE a_error END)
        || CASE WHEN a_fingerprint IS NULL THEN '{}' ELSE jsonb_build_object('fingerprint', a_fingerprint) END) AS v) x
$$;

CREATE OR REPLACE FUNCTION workerd.with_attempt(
    a_attempts jsonb, a_attempt int, a_node text, a_started timestamptz, a_outcome text, a_error text
) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT workerd.with_attempt(a_attempts, a_attempt, a_node, a_started, a_outcome, a_error, NULL, NULL)
$$;

-- An older daemon calls it without fingerprints.
DROP FUNCTION workerd.finish;
CREATE FUNCTION workerd.finish(
    a_node bigint, a_n bigint[], a_pos bigint[], a_outcome text[], a_result text[], a_error text[], a_delay double precision[],
    a_ran double precision[], a_ttl double precision[], a_progress real[], a_fingerprint text[] DEFAULT NULL
) RETURNS int[]
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    owned int[];
    moved int;
    moment timestamptz := clock_timestamp();  -- one for all rows, so that their order is that of their starts
BEGIN
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
    days AS MATERIALIZED (SELECT ttl, workerd.expiry(ttl) AS expires_on FROM (SELECT DISTINCT ttl FROM gone WHERE ttl > 0) t),
    kept AS (
        INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, max_retries, progress, node, enqueued_at,
            queued_at, started_at, task, key, payload, result, error, fingerprint, attempts)
        SELECT g.id, days.expires_on, g.lane, g.ends, g.attempt + 1, g.failures + (g.ends = 'failed')::int, g.crashes, g.max_retries, g.progress, a_node,
            g.enqueued_at, g.queued_at, moment - make_interval(secs => g.ran), g.task, g.key, g.payload, g.result::jsonb, g.error, CASE WHEN g.ends = 'failed' THEN g.fingerprint END, g.attempts
        FROM gone g JOIN days ON days.ttl = g.ttl WHERE g.ends IN ('succeeded', 'failed', 'cancelled')),
    unlocked AS (DELETE FROM workerd.key k USING gone g WHERE g.key IS NOT NULL AND g.ends IN ('succeeded', 'failed', 'cancelled') AND k.key = g.key AND k.id = g.id),
    told AS (DELETE FROM workerd.progress p USING gone g WHERE g.progress IS NOT NULL AND p.id = g.id),
    again AS (
        SELECT g.*, g.attempt + 1 AS spent, g.failures + (g.ends = 'retry')::int AS failed_so_far,
            workerd.with_attempt(g.attempts, g.attempt + 1, (SELECT name FROM workerd.node WHERE id = a_node),
                moment - make_interval(secs => g.ran), CASE g.ends WHEN 'retry' THEN 'failed' ELSE 'snoozed' END, g.error, g.fingerprint) AS log
        FROM gone g WHERE g.ends IN ('retry', 'snooze')),
    later AS (
        INSERT INTO workerd.scheduled (id, lane, run_at, attempt, failures, crashes, max_retries, task, key, enqueued_at, payload, attempts)
        SELECT id, lane, clock_timestamp() + make_interval(secs => delay), spent, failed_so_far, crashes, max_retries, task, key, enqueued_at, payload, log
        FROM again WHERE delay > 0),
    at_once AS (
        INSERT INTO workerd.ready (id, lane, attempt, failures, crashes, max_retries, task, key, enqueued_at, payload, attempts)
        SELECT id, lane, spent, failed_so_far, crashes, max_retries, task, key, enqueued_at, payload, log FROM again WHERE delay <= 0)
    SELECT array_agg(own.place::int ORDER BY own.place), (SELECT count(*) FROM gone) + (SELECT count(*) FROM back) INTO owned, moved FROM own;
    IF moved IS DISTINCT FROM coalesce(cardinality(owned), 0) THEN
        RAISE EXCEPTION 'invariant broken: lease without ready row (% of %)', moved, cardinality(owned);
    END IF;
    RETURN coalesce(owned, '{}');
END $$;

-- Queues a failed, cancelled or scheduled job now, with all its retries. Returns the state it was in, or 'unknown', 'queued', 'running', 'succeeded'.
CREATE OR REPLACE FUNCTION workerd.retry(a_id bigint) RETURNS text LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    was text;
BEGIN
    WITH gone AS (DELETE FROM workerd.scheduled WHERE id = a_id RETURNING *),
    put AS (
        INSERT INTO workerd.ready (lane, id, attempt, failures, crashes, max_retries, task, key, enqueued_at, payload, attempts)
        SELECT lane, id, attempt, failures, crashes, max_retries, task, key, enqueued_at, payload, attempts FROM gone)
    SELECT 'scheduled' INTO was FROM gone;
    IF was IS NULL THEN
        WITH gone AS (DELETE FROM workerd.history WHERE id = a_id AND state IN ('failed', 'cancelled') RETURNING *),
        locked AS (INSERT INTO workerd.key (key, id) SELECT key, id FROM gone WHERE key IS NOT NULL),
        put AS (
            INSERT INTO workerd.ready (lane, id, attempt, max_retries, task, key, enqueued_at, payload, attempts)
            SELECT lane, id, attempt, max_retries, task, key, enqueued_at, payload,
                CASE WHEN started_at IS NULL THEN attempts ELSE workerd.with_attempt(attempts, attempt,
                    (SELECT n.name FROM workerd.node n WHERE n.id = node), started_at, state, error, fingerprint, finished_at) END
            FROM gone)
        SELECT state INTO was FROM gone;
    END IF;
    IF was IS NOT NULL THEN
        PERFORM pg_notify('workerd', 'ready');
        RETURN was;
    END IF;
    SELECT q.state INTO was FROM (
        SELECT CASE WHEN EXISTS (SELECT FROM workerd.lease e WHERE e.lane = r.lane AND e.last >= r.pos AND e.tickets @> r.pos) THEN 'running' ELSE 'queued' END AS state
        FROM workerd.ready r WHERE r.id = a_id
        UNION ALL SELECT h.state FROM workerd.history h WHERE h.id = a_id) q LIMIT 1;
    RETURN coalesce(was, 'unknown');
EXCEPTION WHEN unique_violation THEN
    RETURN 'key taken';
END $$;

-- Every job, wherever it is; the running attempt counts as begun. The fingerprint is that of the failure that came last.
CREATE OR REPLACE VIEW workerd.job AS
SELECT r.id, r.task, l.queue, CASE WHEN e.node IS NULL THEN 'queued' ELSE 'running' END AS state, l.priority::int AS priority, r.payload,
    NULL::jsonb AS result, NULL::text AS error, r.attempt + (e.node IS NOT NULL)::int AS attempt, r.failures,
    coalesce(r.max_retries, t.max_retries)::int AS max_retries, p.fraction AS progress, p.message, r.key, r.enqueued_at, r.queued_at AS run_at,
    e.claimed_at AS started_at, NULL::timestamptz AS finished_at, n.name AS node, r.attempts,
    r.attempts -> -1 ->> 'fingerprint' AS fingerprint
FROM workerd.ready r JOIN workerd.lane l ON l.id = r.lane LEFT JOIN workerd.task t ON t.name = r.task
LEFT JOIN workerd.lease e ON e.lane = r.lane AND e.last >= r.pos AND e.tickets @> r.pos
LEFT JOIN workerd.node n ON n.id = e.node LEFT JOIN workerd.progress p ON p.id = r.id
UNION ALL
SELECT s.id, s.task, l.queue, 'scheduled', l.priority, s.payload, NULL, s.attempts -> -1 ->> 'error', s.attempt, s.failures,
    coalesce(s.max_retries, t.max_retries), NULL, NULL, s.key, s.enqueued_at, s.run_at, NULL, NULL, NULL, s.attempts,
    s.attempts -> -1 ->> 'fingerprint'
FROM workerd.scheduled s JOIN workerd.lane l ON l.id = s.lane LEFT JOIN workerd.task t ON t.name = s.task
UNION ALL
SELECT h.id, h.task, l.queue, h.state, l.priority, h.payload, h.result, h.error, h.attempt, h.failures,
    coalesce(h.max_retries, t.max_retries), h.progress, NULL, h.key, h.enqueued_at, h.queued_at, h.started_at, h.finished_at, n.name, h.attempts,
    CASE WHEN h.state = 'failed' THEN coalesce(h.fingerprint, 'other') END
FROM workerd.history h JOIN workerd.lane l ON l.id = h.lane LEFT JOIN workerd.task t ON t.name = h.task LEFT JOIN workerd.node n ON n.id = h.node;
