-- Quarantine: a row that a statement cannot digest ends as failed, with the reason, and hinders no other one. Statements stay as quick as they
-- were: only where one was refused is it run again in such a way that the refused row is found.

-- part: table
-- What was quarantined, for `doctor` and metrics; the jobs themselves are in the history.
CREATE TABLE workerd.quarantined (
    id bigint NOT NULL,
    task text NOT NULL,
    reason text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX quarantined_at ON workerd.quarantined (at);

-- part: history: a job may fail before any node has begun it
SET LOCAL lock_timeout = '3s';
LOCK TABLE workerd.history IN SHARE UPDATE EXCLUSIVE MODE;
SET LOCAL lock_timeout = '100ms';
ALTER TABLE workerd.history
    DROP CONSTRAINT history_run,
    ADD CONSTRAINT history_run CHECK (
        CASE WHEN started_at IS NULL THEN (state = 'cancelled' OR fingerprint IS NOT DISTINCT FROM 'quarantine') AND node IS NULL
            ELSE node IS NOT NULL AND attempt > 0 END) NOT VALID;

-- part outside of a transaction: history: the rows that are there fit as well
ALTER TABLE workerd.history VALIDATE CONSTRAINT history_run;

-- part: functions
-- Whether rows are to be taken one by one where all together are refused. Set by the caller for one transaction, after a refusal.
CREATE FUNCTION workerd.is_careful() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce(current_setting('workerd.careful', true), '') = 'on'
$$;

-- A time as every client can read it, now in place of one that none can.
CREATE FUNCTION workerd.plain_time(a_time timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN a_time > '0001-01-02' AND a_time < '9999-12-30' THEN a_time ELSE now() END
$$;

-- Fails a job whose row, or whose end, cannot be processed, and keeps it for 30 days: that of a ticket in a lane, or, without a lane, that of
-- an id in workerd.scheduled. Its row must be nobody else's: locked, or on a lease that is. With a node its attempt counts as begun.
-- Nothing here can be refused for what the row holds. Returns whether there was such a row.
CREATE FUNCTION workerd.quarantine(
    a_key bigint, a_lane int, a_reason text, a_node bigint DEFAULT NULL, a_started timestamptz DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    job workerd.ready;
    begun int := (a_node IS NOT NULL)::int;
    kept_until date := workerd.expiry(2592000);
BEGIN
    IF a_lane IS NULL THEN
        DELETE FROM workerd.scheduled s WHERE s.id = a_key
        RETURNING s.lane, s.id, s.attempt, s.failures, s.crashes, s.max_retries, s.task, s.key, s.enqueued_at, s.run_at, s.payload, s.attempts, s.options
        INTO job.lane, job.id, job.attempt, job.failures, job.crashes, job.max_retries, job.task, job.key, job.enqueued_at, job.queued_at,
            job.payload, job.attempts, job.options;
    ELSE
        DELETE FROM workerd.ready r WHERE r.lane = a_lane AND r.pos = a_key RETURNING r.* INTO job;
    END IF;
    IF job.id IS NULL THEN
        RETURN false;
    END IF;
    INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, max_retries, node, enqueued_at, queued_at, started_at,
        task, key, payload, error, fingerprint, attempts, options)
    VALUES (job.id, kept_until, job.lane, 'failed', least(job.attempt::bigint + begun, 2147483647), least(job.failures::bigint + begun, 2147483647 - job.crashes),
        job.crashes, job.max_retries, a_node, workerd.plain_time(job.enqueued_at), workerd.plain_time(job.queued_at), a_started, job.task,
        job.key, job.payload, a_reason, 'quarantine', CASE WHEN jsonb_typeof(job.attempts) = 'array' THEN job.attempts END,
        CASE WHEN jsonb_typeof(job.options) = 'object' THEN nullif(job.options - 'limited', '{}') END);
    INSERT INTO workerd.quarantined (id, task, reason) VALUES (job.id, job.task, a_reason);
    DELETE FROM workerd.key k WHERE k.key = job.key AND k.id = job.id;
    PERFORM workerd.tell_children(ARRAY[job.id], 'failed');
    PERFORM workerd.wake_leader();
    BEGIN
        PERFORM workerd.notice(ARRAY[job.id], ARRAY[kept_until]);
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'the failure of job % could not be told: %', job.id, SQLERRM;
    END;
    RETURN true;
END $$;

-- Quarantines a job that a lease holds; returns whether it held it.
CREATE FUNCTION workerd.quarantine_held(a_node bigint, a_n bigint, a_pos bigint, a_reason text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET jit = off AS $$
DECLARE
    held workerd.lease;
    this int8multirange := int8multirange(int8range(a_pos, a_pos + 1));
BEGIN
    SELECT * INTO held FROM workerd.lease l WHERE l.node = a_node AND l.n = a_n AND l.tickets @> a_pos FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    ELSIF held.tickets <@ this THEN
        DELETE FROM workerd.lease l WHERE l.node = a_node AND l.n = a_n;
    ELSE
        UPDATE workerd.lease l SET tickets = l.tickets - this WHERE l.node = a_node AND l.n = a_n;
    END IF;
    RETURN workerd.quarantine(a_pos, held.lane, a_reason, a_node, held.claimed_at);
END $$;

-- For a claim of one job that was refused, with its arguments: quarantines the job that it would have taken if it is refused for that one.
-- Under the lane's lock, and by the claim itself: another session may have taken or quarantined it meanwhile. Returns whether it did.
CREATE FUNCTION workerd.quarantine_next(
    a_node bigint, a_n bigint, a_lanes int[], a_lows bigint[], a_batch int, a_tasks text[], a_free boolean, a_alone boolean,
    a_last_chance int, a_rest boolean
) RETURNS boolean LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
DECLARE
    in_lane int;
    low bigint;
    taken int8multirange;
    next bigint;
    reason text;
BEGIN
    SELECT l.lane, l.low INTO in_lane, low FROM unnest(a_lanes, a_lows) WITH ORDINALITY AS l(lane, low, place)
    WHERE EXISTS (SELECT FROM workerd.ready r WHERE r.lane = l.lane AND r.pos >= l.low) ORDER BY l.place LIMIT 1;
    PERFORM workerd.lock_lane(in_lane);
    SELECT coalesce(range_agg(l.tickets), '{}') INTO taken FROM workerd.lease l WHERE l.lane = in_lane AND l.last >= low;
    SELECT r.pos INTO next FROM workerd.ready r
    WHERE r.lane = in_lane AND r.pos >= low AND NOT r.pos <@ taken AND r.task = ANY (a_tasks) AND (r.crashes < a_last_chance OR a_alone)
    ORDER BY r.pos LIMIT 1;
    IF next IS NULL THEN
        RETURN false;
    END IF;
    BEGIN
        PERFORM workerd.claim(a_node, a_n, ARRAY[in_lane], ARRAY[next], 1, a_tasks, a_free, a_alone, a_last_chance, false);
        RAISE EXCEPTION 'it can be claimed' USING ERRCODE = 'WD002';  -- which undoes the claim
    EXCEPTION
        WHEN SQLSTATE 'WD002' THEN
            RETURN false;
        WHEN data_exception OR program_limit_exceeded THEN
            reason := format('it cannot be claimed: %s', SQLERRM);
    END;
    RETURN workerd.quarantine(next, in_lane, reason);
END $$;

-- Runs a statement for rows, its $1; where it is refused for what they hold, for each half of them, until the row is found, which is
-- quarantined. The rows are ids in workerd.scheduled, or tickets in a lane.
CREATE FUNCTION workerd.sift(a_statement text, a_keys bigint[], a_lane int DEFAULT NULL) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    half int := cardinality(a_keys) / 2;
    reason text;
BEGIN
    BEGIN
        EXECUTE a_statement USING a_keys;
        RETURN;
    EXCEPTION WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded OR raise_exception THEN
        reason := SQLERRM;
    END;
    IF half > 0 THEN
        PERFORM workerd.sift(a_statement, a_keys[:half], a_lane);
        PERFORM workerd.sift(a_statement, a_keys[half + 1:], a_lane);
    ELSE
        PERFORM workerd.quarantine(a_keys[1], a_lane, format('it cannot be processed: %s', reason));
    END IF;
END $$;

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

-- Queues scheduled jobs that are due, or sends them into their lines.
CREATE FUNCTION workerd.queue_due(a_due bigint[]) RETURNS void LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET jit = off AS $$
DECLARE
    due bigint[] := a_due;
    lanes int[];
BEGIN
    IF EXISTS (SELECT FROM workerd.lane l WHERE l.limited) OR EXISTS (SELECT FROM workerd.task t WHERE t.limited) THEN
        WITH held AS (
            UPDATE workerd.scheduled s SET waits = 'limit', line = workerd.line_of(s.task, s.payload)
            WHERE s.id = ANY (a_due) AND workerd.is_limited(s.lane, s.task) RETURNING s.id)
        SELECT coalesce(array_agg(d), '{}') INTO due FROM unnest(a_due) d WHERE NOT EXISTS (SELECT FROM held h WHERE h.id = d);
    END IF;
    IF cardinality(due) > 0 THEN
        WITH gone AS (DELETE FROM workerd.scheduled s WHERE s.id = ANY (due) RETURNING *),
        put AS (
            INSERT INTO workerd.ready (lane, id, attempt, failures, crashes, max_retries, task, key, enqueued_at, queued_at, payload, attempts, options)
            SELECT lane, id, attempt, failures, crashes, max_retries, task, key, enqueued_at, run_at, payload, attempts, options FROM gone ORDER BY run_at, id
            RETURNING lane)
        SELECT array_agg(DISTINCT lane) INTO lanes FROM put;
        PERFORM workerd.wake(l) FROM unnest(lanes) l;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION workerd.stage(a_rows int, OUT staged int, OUT next_in double precision) LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET jit = off AS $$
DECLARE
    moment timestamptz := clock_timestamp();  -- a value, which the index can be asked for
    due bigint[] := ARRAY(
        SELECT s.id FROM workerd.scheduled s WHERE s.waits IS NULL AND s.run_at <= moment AND s.run_at > '-infinity'
        ORDER BY s.run_at LIMIT a_rows FOR UPDATE SKIP LOCKED);
    never bigint;
BEGIN
    staged := cardinality(due);
    IF workerd.is_careful() THEN
        PERFORM workerd.sift('SELECT workerd.queue_due($1)', due);
    ELSIF staged > 0 THEN
        PERFORM workerd.queue_due(due);
    END IF;
    -- no time at which a job could run, and older servers cannot reckon with it
    FOR never IN SELECT s.id FROM workerd.scheduled s WHERE s.waits IS NULL AND s.run_at IN ('infinity', '-infinity') FOR UPDATE SKIP LOCKED LOOP
        IF NOT workerd.is_careful() THEN
            RAISE EXCEPTION 'the run_at of job % is infinite', never USING ERRCODE = '22008';
        END IF;
        PERFORM workerd.quarantine(never, NULL, 'its run_at is infinite');
    END LOOP;
    SELECT extract(epoch FROM min(s.run_at) - clock_timestamp()) INTO next_in
    FROM workerd.scheduled s WHERE s.waits IS NULL AND s.run_at > '-infinity' AND s.run_at < 'infinity';
END $$;

CREATE OR REPLACE FUNCTION workerd.settle(a_rows int, a_node bigint, a_ttl double precision) RETURNS int
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    fresh bigint[];
    heard bigint[];
    oldest bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM workerd.unlooked) AND NOT EXISTS (SELECT FROM workerd.dependency WHERE news) THEN
        RETURN 0;
    END IF;
    oldest := pg_snapshot_xmin(pg_current_snapshot())::text;  -- before the look: what began earlier is seen by it
    fresh := ARRAY(
        SELECT u.child FROM workerd.unlooked u
        WHERE u.xid IS NULL OR u.xid <= oldest OR u.at < clock_timestamp() - interval '10 s'
        ORDER BY u.child LIMIT a_rows);
    IF cardinality(fresh) > 0 THEN
        -- Each place in one snapshot: a job that moves is in one of them. One that is nowhere has succeeded and was not kept.
        WITH open AS MATERIALIZED (
            SELECT d.child, d.parent FROM workerd.dependency d WHERE d.child = ANY (fresh) AND d.ended IS NULL FOR UPDATE SKIP LOCKED)
        UPDATE workerd.dependency d SET news = true, ended = coalesce(
            (SELECT h.state FROM workerd.history h WHERE h.id = open.parent LIMIT 1), 'succeeded')
        FROM open WHERE d.child = open.child AND d.parent = open.parent
            AND NOT EXISTS (SELECT FROM workerd.ready r WHERE r.id = open.parent) AND NOT EXISTS (SELECT FROM workerd.scheduled s WHERE s.id = open.parent);
        DELETE FROM workerd.unlooked u WHERE u.child = ANY (fresh) AND u.xid <= oldest;
        UPDATE workerd.unlooked u SET xid = coalesce(u.xid, pg_current_xact_id()::text::bigint), at = clock_timestamp() WHERE u.child = ANY (fresh);
    END IF;
    heard := ARRAY(SELECT DISTINCT d.child FROM workerd.dependency d WHERE d.news LIMIT a_rows);
    heard := heard || ARRAY(  -- a batch of nothing has no news
        SELECT s.id FROM workerd.scheduled s WHERE s.id = ANY (fresh) AND s.waits = 'jobs' AND s.options ? 'batch'
            AND NOT EXISTS (SELECT FROM workerd.dependency d WHERE d.child = s.id));
    UPDATE workerd.dependency d SET news = false WHERE d.news AND d.child = ANY (heard);
    IF workerd.is_careful() THEN
        PERFORM workerd.sift(format('SELECT workerd.decide($1, %s, %s)', a_node, a_ttl), heard);
    ELSE
        PERFORM workerd.decide(heard, a_node, a_ttl);
    END IF;
    RETURN cardinality(fresh) + cardinality(heard);
END $$;

-- Lets jobs of one task into the ready table, in this order, each with a slot.
CREATE FUNCTION workerd.let_in(a_ids bigint[], a_task text, a_queue text, a_key_rate double precision) RETURNS void
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    lines text[];
BEGIN
    WITH gone AS (DELETE FROM workerd.scheduled s WHERE s.id = ANY (a_ids) RETURNING *),
    put AS (
        INSERT INTO workerd.ready (lane, id, attempt, failures, crashes, max_retries, task, key, enqueued_at, queued_at, payload, attempts, options)
        SELECT g.lane, g.id, g.attempt, g.failures, g.crashes, g.max_retries, g.task, g.key, g.enqueued_at, g.run_at, g.payload, g.attempts,
            coalesce(g.options, '{}') || '{"limited": true}'
        FROM gone g JOIN unnest(a_ids) WITH ORDINALITY AS o(id, place) ON o.id = g.id ORDER BY o.place),
    held AS (INSERT INTO workerd.slot (id, task, queue, line) SELECT g.id, a_task, a_queue, g.line FROM gone g)
    SELECT array_agg(g.line) INTO lines FROM gone g;
    IF a_key_rate IS NOT NULL THEN
        PERFORM workerd.take_tokens('key', a_task, c.line, a_key_rate, c.n::int) FROM (SELECT l AS line, count(*) AS n FROM unnest(lines) l GROUP BY l) c;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION workerd.admit_pool(
    a_task text, a_lane int, a_queue text, a_room int, a_key_rate double precision, a_key_concurrency int
) RETURNS int LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    since text := coalesce((SELECT t.line FROM workerd.turn t WHERE t.lane = a_lane AND t.task = a_task), '');
    lines text[];
    rooms int[];
    let bigint[];
    let_lines text[];
BEGIN
    WITH RECURSIVE behind(line) AS (
        (SELECT s.line FROM workerd.scheduled s WHERE s.waits = 'limit' AND s.task = a_task AND s.lane = a_lane AND s.line > since ORDER BY s.line LIMIT 1)
        UNION ALL
        SELECT n.line FROM behind b, LATERAL (
            SELECT s.line FROM workerd.scheduled s WHERE s.waits = 'limit' AND s.task = a_task AND s.lane = a_lane AND s.line > b.line ORDER BY s.line LIMIT 1) n),
    before(line) AS (
        (SELECT s.line FROM workerd.scheduled s WHERE s.waits = 'limit' AND s.task = a_task AND s.lane = a_lane AND s.line <= since ORDER BY s.line LIMIT 1)
        UNION ALL
        SELECT n.line FROM before b, LATERAL (
            SELECT s.line FROM workerd.scheduled s WHERE s.waits = 'limit' AND s.task = a_task AND s.lane = a_lane AND s.line > b.line AND s.line <= since
            ORDER BY s.line LIMIT 1) n)
    SELECT array_agg(x.line), array_agg(x.room) INTO lines, rooms FROM (
        SELECT a.line, f.room FROM (SELECT line FROM behind UNION ALL SELECT line FROM before) a, LATERAL (
            SELECT least(a_room,
                a_key_concurrency - (SELECT count(*) FROM workerd.slot o WHERE o.task = a_task AND o.line = a.line AND a_key_concurrency IS NOT NULL),
                CASE WHEN a_key_rate IS NOT NULL THEN floor(workerd.tokens('key', a_task, a.line, a_key_rate)) END)::int AS room) f
        WHERE f.room > 0 LIMIT a_room) x;
    IF lines IS NULL THEN
        RETURN 0;
    END IF;
    SELECT array_agg(p.id), array_agg(p.line) INTO let, let_lines FROM (
        SELECT s.id, u.line FROM unnest(lines, rooms) WITH ORDINALITY AS u(line, room, place), LATERAL (
            SELECT s.id, row_number() OVER (ORDER BY s.run_at, s.id) AS turn FROM (
                SELECT s.id, s.run_at FROM workerd.scheduled s
                WHERE s.waits = 'limit' AND s.task = a_task AND s.lane = a_lane AND s.line = u.line ORDER BY s.run_at, s.id
                LIMIT least(u.room, ceil(a_room::double precision / cardinality(lines))) FOR UPDATE SKIP LOCKED) s) s
        ORDER BY s.turn, u.place LIMIT a_room) p;
    IF let IS NULL THEN
        RETURN 0;
    END IF;
    IF workerd.is_careful() THEN
        PERFORM workerd.sift(format('SELECT workerd.let_in($1, %L, %L, %L)', a_task, a_queue, a_key_rate), let);
    ELSE
        PERFORM workerd.let_in(let, a_task, a_queue, a_key_rate);
    END IF;
    INSERT INTO workerd.turn (lane, task, line) VALUES (a_lane, a_task, let_lines[cardinality(let_lines)])
    ON CONFLICT (lane, task) DO UPDATE SET line = excluded.line;
    RETURN cardinality(let);
END $$;

-- Sends queued jobs into their lines. The caller has locked their lane; no lease holds them.
CREATE FUNCTION workerd.line_up(a_lane int, a_pos bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
BEGIN
    WITH gone AS (DELETE FROM workerd.ready r WHERE r.lane = a_lane AND r.pos = ANY (a_pos) RETURNING r.*)
    INSERT INTO workerd.scheduled (id, lane, run_at, attempt, failures, crashes, max_retries, task, key, enqueued_at, payload, attempts, options, waits, line)
    SELECT g.id, g.lane, g.queued_at, g.attempt, g.failures, g.crashes, g.max_retries, g.task, g.key, g.enqueued_at, g.payload, g.attempts, g.options,
        'limit', workerd.line_of(g.task, g.payload)
    FROM gone g;
END $$;

CREATE OR REPLACE FUNCTION workerd.hold_back(a_lane int, a_since bigint, a_rows int) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    taken int8multirange;
    until bigint;
    early bigint[];
BEGIN
    SELECT max(w.pos) INTO until FROM (SELECT r.pos FROM workerd.ready r WHERE r.lane = a_lane AND r.pos > a_since ORDER BY r.pos LIMIT a_rows) w;
    IF until IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM workerd.lock_lane(a_lane);
    SELECT coalesce(range_agg(l.tickets), '{}') INTO taken FROM workerd.lease l WHERE l.lane = a_lane;
    early := ARRAY(
        SELECT r.pos FROM workerd.ready r WHERE r.lane = a_lane AND r.pos > a_since AND r.pos <= until AND NOT r.pos <@ taken
            AND (r.options ? 'limited') IS NOT TRUE AND workerd.is_limited(a_lane, r.task) ORDER BY r.pos);
    IF workerd.is_careful() THEN
        PERFORM workerd.sift(format('SELECT workerd.line_up(%s, $1)', a_lane), early, a_lane);
    ELSE
        PERFORM workerd.line_up(a_lane, early);
    END IF;
    RETURN until;
END $$;

-- Moves those of the queued jobs of a lane that wait long enough to another one, and returns how many. The caller has locked the first lane;
-- no lease holds them.
CREATE FUNCTION workerd.move_early(a_from int, a_to int, a_before timestamptz, a_ageing double precision, a_pos bigint[]) RETURNS int
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

CREATE OR REPLACE FUNCTION workerd.move_queued(a_from int, a_to int, a_before timestamptz, a_ageing double precision, a_rows int) RETURNS int
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    taken int8multirange;
    first bigint[];
    moved int;
BEGIN
    PERFORM workerd.lock_lane(a_from);
    SELECT coalesce(range_agg(l.tickets), '{}') INTO taken FROM workerd.lease l WHERE l.lane = a_from;
    first := ARRAY(
        SELECT w.pos FROM (SELECT r.pos FROM workerd.ready r WHERE r.lane = a_from ORDER BY r.pos LIMIT a_rows) w WHERE NOT w.pos <@ taken ORDER BY w.pos);
    IF workerd.is_careful() THEN
        PERFORM workerd.sift(format('SELECT workerd.move_early(%s, %s, %L, %L, $1)', a_from, a_to, a_before, a_ageing), first, a_from);
        moved := 0;  -- not counted
    ELSE
        moved := workerd.move_early(a_from, a_to, a_before, a_ageing, first);
    END IF;
    PERFORM workerd.wake(a_to) WHERE moved > 0 OR workerd.is_careful();
    RETURN moved;
END $$;

-- Takes jobs of a dead node's lease back; of those that crashed too often it says so.
CREATE FUNCTION workerd.take_back(a_held workerd.lease, a_pos bigint[], a_max_crashes int, a_ttl double precision)
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
