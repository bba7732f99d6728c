-- One round trip a batch: what has succeeded is finished and the next jobs are claimed. Locks in the order of 0002.
--
-- Statements whose best plan is an index scan whatever the statistics say are planned once (generic), with the other scans switched off:
-- to plan for 500 given tickets anew takes longer than to delete them. Nor is anything compiled, which the estimates for a large table
-- would have the server do at each call, and which takes longer than the call.

-- What a claim answers, and before it, the attempts that a finish no longer owned. Element by element, in order of tickets: the jobs.
CREATE TYPE workerd.answer AS (
    lost_n bigint[], lost_pos bigint[],  -- leases and tickets of ends that were dropped since the job had been rescued
    lane int,                            -- NULL: every lane was empty from its low bound on
    last bigint,                         -- the highest ticket that need not be looked at again
    pos bigint[], id bigint[], task text[],
    waited double precision[],           -- seconds since the job became queued
    payload text[],                      -- NULL, as a whole or in parts: ask workerd.payloads
    marks jsonb,                         -- [pos, attempts spent, failures, crashes, max_retries, key] of the jobs that have any of it
    asleep boolean,                      -- nothing was there, and the next enqueue into one of the lanes notifies
    oldest_xid bigint, next_xid bigint   -- then: transactions that could still commit tickets drawn before are between
);

-- Daemons that found nothing hold a shared lock of each of their lanes while they sleep. It goes with their session.
CREATE FUNCTION workerd.sleep_lock(a_lane int) RETURNS int LANGUAGE sql IMMUTABLE AS $$
    SELECT a_lane & 63  -- two lanes may share one: that wakes a daemon in vain, and the server's table of locks stays small
$$;

-- Wakes the daemons that sleep on a lane. Where none does no notification is sent, for those are serialised by one lock for the whole server.
-- Taken and given back in one expression, which nothing interrupts: a lock that is left behind would keep daemons from their sleep.
CREATE FUNCTION workerd.wake(a_lane int) RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN pg_try_advisory_lock('workerd.queue'::regclass::oid::int, workerd.sleep_lock(a_lane))
        THEN NOT pg_advisory_unlock('workerd.queue'::regclass::oid::int, workerd.sleep_lock(a_lane)) ELSE pg_notify('workerd', 'ready') IS NOT NULL END
$$;

-- As before, with its plan kept: it is asked at each end of a batch.
CREATE OR REPLACE FUNCTION workerd.expiry(a_ttl double precision) RETURNS date LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce(
        (SELECT min(day) FROM workerd.history_day WHERE day > ((now() + make_interval(secs => a_ttl)) AT TIME ZONE 'UTC')::date),
        (SELECT max(day) FROM workerd.history_day));
END $$;

-- The lane of a call: queue and priority as given, else as the task was declared, else the default.
CREATE FUNCTION workerd.lane_for(a_task text, a_queue text, a_priority int) RETURNS int LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    to_queue text := a_queue;
    to_priority int := a_priority;
BEGIN
    IF a_queue IS NULL OR a_priority IS NULL THEN
        SELECT coalesce(a_queue, t.queue), coalesce(a_priority, t.priority) INTO to_queue, to_priority FROM workerd.task t WHERE t.name = a_task;
    END IF;
    RETURN workerd.lane_of(coalesce(to_queue, a_queue, 'default'), coalesce(to_priority, a_priority, 0));
END $$;

-- A look of its own, whose plan does not depend on how many keys there were when it was made.
CREATE FUNCTION workerd.key_holder(a_key text) RETURNS bigint LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
BEGIN
    RETURN (SELECT k.id FROM workerd.key k WHERE k.key = a_key);
END $$;

CREATE OR REPLACE FUNCTION workerd.enqueue(
    task text, payload jsonb DEFAULT '{}', queue text DEFAULT NULL, priority int DEFAULT NULL, run_at timestamptz DEFAULT NULL,
    key text DEFAULT NULL, max_retries int DEFAULT NULL, delay interval DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    to_lane int;
    due timestamptz := coalesce(enqueue.run_at, now() + enqueue.delay);
    new_id bigint;
    holder bigint;
BEGIN
    IF jsonb_typeof(enqueue.payload) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'the payload of % is not a JSON object of its arguments', enqueue.task USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF pg_column_size(enqueue.payload) > 100000 AND octet_length(enqueue.payload::text) > 1000000 THEN
        RAISE EXCEPTION 'the payload of % is over 1 MB: store the data elsewhere and pass a reference', enqueue.task
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    to_lane := workerd.lane_for(enqueue.task, enqueue.queue, enqueue.priority);
    new_id := nextval('workerd.job_id');
    IF enqueue.key IS NOT NULL THEN
        LOOP
            INSERT INTO workerd.key (key, id) VALUES (enqueue.key, new_id) ON CONFLICT DO NOTHING;
            EXIT WHEN FOUND;
            holder := workerd.key_holder(enqueue.key);
            IF holder IS NOT NULL THEN
                RETURN holder;
            END IF;  -- the holder finished between the two statements: try again
        END LOOP;
    END IF;
    IF due > now() THEN
        INSERT INTO workerd.scheduled (id, lane, run_at, max_retries, task, key, payload)
        VALUES (new_id, to_lane, due, enqueue.max_retries, enqueue.task, enqueue.key, enqueue.payload);
    ELSE
        INSERT INTO workerd.ready (lane, id, max_retries, task, key, payload)
        VALUES (to_lane, new_id, enqueue.max_retries, enqueue.task, enqueue.key, enqueue.payload);
        PERFORM workerd.wake(to_lane);
    END IF;
    RETURN new_id;
END $$;
ALTER FUNCTION workerd.enqueue RESET ALL;

CREATE OR REPLACE FUNCTION workerd.enqueue_many(
    task text, payloads text[], queue text DEFAULT NULL, priority int DEFAULT NULL, run_at timestamptz DEFAULT NULL,
    max_retries int DEFAULT NULL, delay interval DEFAULT NULL
) RETURNS SETOF bigint LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    to_lane int := workerd.lane_for(enqueue_many.task, enqueue_many.queue, enqueue_many.priority);
    due timestamptz := coalesce(enqueue_many.run_at, now() + enqueue_many.delay);
BEGIN
    IF due > now() THEN
        RETURN QUERY INSERT INTO workerd.scheduled (id, lane, run_at, max_retries, task, payload)
        SELECT nextval('workerd.job_id'), to_lane, due, enqueue_many.max_retries, enqueue_many.task, p::jsonb
        FROM unnest(enqueue_many.payloads) AS p RETURNING id;
    ELSE
        RETURN QUERY INSERT INTO workerd.ready (lane, id, max_retries, task, payload)
        SELECT to_lane, nextval('workerd.job_id'), enqueue_many.max_retries, enqueue_many.task, p::jsonb
        FROM unnest(enqueue_many.payloads) AS p RETURNING id;
        PERFORM workerd.wake(to_lane);
    END IF;
END $$;

-- What a COPY of jobs into workerd.ready, or where a_due is set into workerd.scheduled, has to put into their rows. The caller wakes afterwards.
CREATE FUNCTION workerd.reserve(
    a_jobs int, a_task text, a_queue text, a_priority int, a_run_at timestamptz, a_delay interval,
    OUT lane int, OUT due timestamptz, OUT ids bigint[]
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    lane := workerd.lane_for(a_task, a_queue, a_priority);
    due := coalesce(a_run_at, now() + a_delay);
    IF due <= now() THEN
        due := NULL;
    END IF;
    ids := array(SELECT nextval('workerd.job_id') FROM generate_series(1, a_jobs));
END $$;

-- Claims up to a_batch jobs of the first of a_lanes that has any from its low bound on.
-- A node that was declared dead is refused (WD001): what it took would be taken back at once, and charged for it.
-- A job with a crash is claimed alone, and waits with what is behind it until the node says a_free; on its last chance it is passed over
-- unless a_alone (the node runs no other such job).
-- a_rest: where nothing is there fall asleep, and look once more, for what was enqueued before the lock was there to be seen.
-- Payloads of more than 64 kB together are left out: the answer is sent before the commit, while the lane is locked, and has to fit into
-- the buffers in between even if nobody reads it.
DROP FUNCTION workerd.claim;
CREATE FUNCTION workerd.claim(
    a_node bigint, a_n bigint, a_lanes int[], a_lows bigint[], a_batch int, a_tasks text[], a_free boolean, a_alone boolean,
    a_last_chance int, a_rest boolean
) RETURNS workerd.answer
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    got workerd.answer;
    low bigint;
    taken int8multirange;
    size int;
    crashed bigint;
    alive boolean;
    ignored text;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a claim needs READ COMMITTED';
    END IF;
    LOOP
        -- The first lane that has anything is locked; what is unlocked is our sleep, for a claimer's session holds no other locks.
        -- The lock, the leases and the rows in three statements in this order: each snapshot sees what the former waited for.
        SELECT l.lane, l.low, workerd.lock_lane(l.lane), pg_advisory_unlock_all(),
            EXISTS (SELECT FROM workerd.node d WHERE d.id = a_node AND d.dead_at IS NULL)
        INTO got.lane, low, ignored, ignored, alive
        FROM unnest(a_lanes, a_lows) AS l(lane, low)
        WHERE (SELECT true FROM workerd.ready r WHERE r.lane = l.lane AND r.pos >= l.low LIMIT 1) LIMIT 1;
        EXIT WHEN got.lane IS NOT NULL OR got.asleep OR NOT a_rest;
        -- one more time where they are held already: there must not be a moment in which they are not
        PERFORM pg_advisory_lock_shared('workerd.queue'::regclass::oid::int, k)
            FROM (SELECT DISTINCT workerd.sleep_lock(lane) FROM unnest(a_lanes) lane) AS locks(k);
        -- After the locks, and before the look that ends this: what commits in between is neither seen nor counted as ended.
        -- In this order, and by an id of our own: transactions may run whose ids are not below the snapshot's xmax.
        got.oldest_xid := pg_snapshot_xmin(pg_current_snapshot())::text;
        got.next_xid := pg_current_xact_id()::text;
        got.asleep := true;
    END LOOP;
    IF got.lane IS NULL THEN
        RETURN got;
    END IF;
    got.asleep := false;
    IF NOT alive THEN
        RAISE EXCEPTION 'node % was declared dead', a_node USING ERRCODE = 'WD001';
    END IF;
    SELECT coalesce(range_agg(l.tickets), '{}') INTO taken FROM workerd.lease l WHERE l.lane = got.lane AND l.last >= low;
    SELECT array_agg(s.pos), array_agg(s.id), array_agg(s.task), array_agg(date_part('epoch', clock_timestamp() - s.queued_at)),
        array_agg(CASE WHEN pg_column_size(s.payload) <= 2048 THEN s.payload::text END),
        jsonb_agg(jsonb_build_array(s.pos, s.attempt, s.failures, s.crashes, s.max_retries, s.key))
            FILTER (WHERE s.attempt > 0 OR s.crashes > 0 OR s.max_retries IS NOT NULL OR s.key IS NOT NULL),
        count(*), min(s.pos) FILTER (WHERE s.crashes > 0)
    INTO got.pos, got.id, got.task, got.waited, got.payload, got.marks, size, crashed
    FROM (
        SELECT r.* FROM workerd.ready r
        WHERE r.lane = got.lane AND r.pos >= low AND NOT r.pos <@ taken AND r.task = ANY (a_tasks) AND (r.crashes < a_last_chance OR a_alone)
        ORDER BY r.pos LIMIT a_batch) s;
    IF crashed IS NOT NULL THEN
        size := CASE WHEN got.pos[1] = crashed THEN a_free::int ELSE array_position(got.pos, crashed) - 1 END;
        got.pos := got.pos[:size];
        got.id := got.id[:size];
        got.task := got.task[:size];
        got.waited := got.waited[:size];
        got.payload := got.payload[:size];
    END IF;
    IF size = 0 THEN
        SELECT coalesce(min(r.pos) FILTER (WHERE r.crashes > 0 AND NOT a_free AND NOT r.pos <@ taken AND r.task = ANY (a_tasks)) - 1, max(r.pos))
        INTO got.last FROM workerd.ready r WHERE r.lane = got.lane AND r.pos >= low;
        RETURN got;
    END IF;
    got.last := got.pos[size];
    INSERT INTO workerd.lease (node, n, lane, tickets, last)
    VALUES (a_node, a_n, got.lane, CASE WHEN got.last - got.pos[1] + 1 = size THEN int8multirange(int8range(got.pos[1], got.last + 1))
        ELSE workerd.set_of(got.pos) END, got.last);
    IF pg_column_size(got.payload) > 65536 THEN
        got.payload := NULL;
    END IF;
    RETURN got;
END $$;

DROP FUNCTION workerd.finish_plain;
-- The part of the following that leaves rows behind, for one lease, which the caller has locked. Returns how many jobs there were.
CREATE FUNCTION workerd.keep_succeeded(
    a_node bigint, a_n bigint, a_lane int, a_tickets int8multirange, k_n bigint[], k_pos bigint[], k_ran double precision[],
    k_result text[], k_ttl double precision[], k_progress real[], a_moment timestamptz
) RETURNS int
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    moved int;
BEGIN
    WITH gone AS MATERIALIZED (
        DELETE FROM workerd.ready r USING unnest(k_n, k_pos, k_ran, k_result, k_ttl, k_progress) AS d(n, pos, ran, result, ttl, progress)
        WHERE d.n = a_n AND a_tickets @> d.pos AND r.lane = a_lane AND r.pos = d.pos
        RETURNING r.*, d.ran, d.result, d.ttl, d.progress),
    days AS MATERIALIZED (SELECT t.ttl, workerd.expiry(t.ttl) AS expires_on FROM (SELECT DISTINCT u FROM unnest(k_ttl) u WHERE u > 0) AS t(ttl)),
    kept AS (
        INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, max_retries, progress, node, enqueued_at,
            queued_at, started_at, finished_at, task, key, payload, result, attempts)
        SELECT g.id, days.expires_on, g.lane, 'succeeded', g.attempt + 1, g.failures, g.crashes, g.max_retries, g.progress, a_node,
            g.enqueued_at, g.queued_at, a_moment - make_interval(secs => g.ran), a_moment, g.task, g.key, g.payload, g.result::jsonb, g.attempts
        FROM gone g JOIN days ON days.ttl = g.ttl),
    unlocked AS (DELETE FROM workerd.key k USING gone g WHERE g.key IS NOT NULL AND k.key = g.key AND k.id = g.id),
    told AS (DELETE FROM workerd.progress p USING gone g WHERE g.progress IS NOT NULL AND p.id = g.id)
    SELECT count(*) INTO moved FROM gone;
    RETURN moved;
END $$;

-- Ends attempts of one node that succeeded: tickets from a_from up to but not including a_to of lease a_n that leave nothing behind,
-- and element by element of the k_ arrays those that do: lease, ticket, seconds since it started, result, seconds to keep the job
-- (0: not at all), progress. What the lease does not hold any more had been rescued: it is dropped, and its leases and tickets are returned.
CREATE FUNCTION workerd.finish_succeeded(
    a_node bigint, a_n bigint[], a_from bigint[], a_to bigint[],
    k_n bigint[], k_pos bigint[], k_ran double precision[], k_result text[], k_ttl double precision[], k_progress real[],
    OUT lost_n bigint[], OUT lost_pos bigint[]
) LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    held workerd.lease;
    plain int8multirange;
    kept int8multirange;
    moved int;
    total int := 0;
    owners bigint[];
    owned int8multirange[];
    moment timestamptz := clock_timestamp();  -- one for all rows, so that their order is that of their starts
BEGIN
    FOR held IN SELECT * FROM workerd.lease l WHERE l.node = a_node AND l.n = ANY (a_n || k_n) ORDER BY l.n FOR UPDATE LOOP
        SELECT coalesce(range_agg(int8range(d.a, d.b)), '{}') * held.tickets INTO plain
        FROM unnest(a_n, a_from, a_to) AS d(n, a, b) WHERE d.n = held.n;
        SELECT coalesce(range_agg(int8range(d.pos, d.pos + 1)), '{}') * held.tickets INTO kept
        FROM unnest(k_n, k_pos) AS d(n, pos) WHERE d.n = held.n;
        CONTINUE WHEN isempty(plain + kept);
        IF held.tickets <@ plain + kept THEN
            DELETE FROM workerd.lease l WHERE l.node = a_node AND l.n = held.n;
        ELSE
            UPDATE workerd.lease l SET tickets = held.tickets - plain - kept WHERE l.node = a_node AND l.n = held.n;
        END IF;
        DELETE FROM workerd.ready r USING unnest(plain) e WHERE r.lane = held.lane AND r.pos >= lower(e) AND r.pos < upper(e);
        GET DIAGNOSTICS moved = ROW_COUNT;
        IF NOT isempty(kept) THEN
            moved := moved + workerd.keep_succeeded(a_node, held.n, held.lane, kept, k_n, k_pos, k_ran, k_result, k_ttl, k_progress, moment);
        END IF;
        IF moved <> (SELECT sum(upper(e) - lower(e)) FROM unnest(plain + kept) e) THEN
            RAISE EXCEPTION 'invariant broken: lease without ready row (% of %)', moved, plain + kept;
        END IF;
        total := total + moved;
        owners := owners || held.n;
        owned := owned || (plain + kept);
    END LOOP;
    IF total = cardinality(k_n) + (SELECT coalesce(sum(b - a), 0) FROM unnest(a_from, a_to) AS d(a, b)) THEN
        RETURN;
    END IF;
    SELECT array_agg(d.n), array_agg(d.pos) INTO lost_n, lost_pos FROM (
        SELECT n, pos FROM unnest(k_n, k_pos) AS u(n, pos)
        UNION ALL SELECT n, generate_series(a, b - 1) FROM unnest(a_n, a_from, a_to) AS u(n, a, b)) AS d(n, pos)
    WHERE NOT EXISTS (SELECT FROM unnest(owners, owned) AS o(n, tickets) WHERE o.n = d.n AND o.tickets @> d.pos);
END $$;

-- Finishes what succeeded and claims the next jobs in one transaction. Where the lane stays locked the claim fails, and undoes the finish:
-- then finish and claim one after the other.
CREATE FUNCTION workerd.cycle(
    a_node bigint, a_n bigint[], a_from bigint[], a_to bigint[],
    k_n bigint[], k_pos bigint[], k_ran double precision[], k_result text[], k_ttl double precision[], k_progress real[],
    c_n bigint, c_lanes int[], c_lows bigint[], c_batch int, c_tasks text[], c_free boolean, c_alone boolean, c_last_chance int, c_rest boolean
) RETURNS workerd.answer
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    lost record;
    got workerd.answer;
BEGIN
    lost := workerd.finish_succeeded(a_node, a_n, a_from, a_to, k_n, k_pos, k_ran, k_result, k_ttl, k_progress);
    got := workerd.claim(a_node, c_n, c_lanes, c_lows, c_batch, c_tasks, c_free, c_alone, c_last_chance, c_rest);
    got.lost_n := lost.lost_n;
    got.lost_pos := lost.lost_pos;
    RETURN got;
END $$;

CREATE OR REPLACE FUNCTION workerd.stage(a_rows int, OUT staged int, OUT next_in double precision) LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
DECLARE
    moment timestamptz := clock_timestamp();  -- a value, which the index can be asked for
    lanes int[];
BEGIN
    WITH due AS (
        DELETE FROM workerd.scheduled WHERE id = ANY (ARRAY(
            SELECT s.id FROM workerd.scheduled s WHERE s.run_at <= moment ORDER BY s.run_at LIMIT a_rows FOR UPDATE SKIP LOCKED)) RETURNING *),
    put AS (
        INSERT INTO workerd.ready (lane, id, attempt, failures, crashes, max_retries, task, key, enqueued_at, queued_at, payload, attempts)
        SELECT lane, id, attempt, failures, crashes, max_retries, task, key, enqueued_at, run_at, payload, attempts FROM due ORDER BY run_at, id
        RETURNING lane)
    SELECT count(*), array_agg(DISTINCT lane) INTO staged, lanes FROM put;
    PERFORM workerd.wake(l) FROM unnest(lanes) l;
    SELECT extract(epoch FROM min(s.run_at) - clock_timestamp()) INTO next_in FROM workerd.scheduled s;
END $$;

ALTER FUNCTION workerd.finish SET jit = off;
ALTER FUNCTION workerd.give_back SET jit = off;
ALTER FUNCTION workerd.rescue SET jit = off;
ALTER FUNCTION workerd.cancel SET jit = off;
ALTER FUNCTION workerd.drop_cancelled SET jit = off;
ALTER FUNCTION workerd.stage SET jit = off;
