-- Locks, always in this order within one transaction: lease row, ready rows, lane (advisory, until commit).
-- Whoever holds a lane's lock never waits for a lease row. One lane a transaction.

-- Positions as a multirange.
CREATE FUNCTION workerd.set_of(a_pos bigint[]) RETURNS int8multirange LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(range_agg(int8range(p, p + 1)), '{}') FROM unnest(a_pos) p
$$;

CREATE FUNCTION workerd.positions(a_set int8multirange) RETURNS SETOF bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT generate_series(lower(r), upper(r) - 1) FROM unnest(a_set) r
$$;

CREATE FUNCTION workerd.lock_lane(a_lane int) RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock('workerd.lease'::regclass::oid::int, a_lane)
$$;

-- The partition for a job that may go after a_ttl: the first existing one that is not too early, else the last one.
CREATE FUNCTION workerd.expiry(a_ttl double precision) RETURNS date LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (SELECT min(day) FROM workerd.history_day WHERE day > ((now() + make_interval(secs => a_ttl)) AT TIME ZONE 'UTC')::date),
        (SELECT max(day) FROM workerd.history_day))
$$;

-- One entry of a job's list of attempts; the list keeps the newest 20.
CREATE FUNCTION workerd.with_attempt(a_attempts jsonb, a_attempt int, a_node text, a_started timestamptz, a_outcome text, a_error text)
RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN jsonb_array_length(v) > 20 THEN v - 0 ELSE v END
    FROM (SELECT coalesce(a_attempts, '[]') || jsonb_build_array(jsonb_build_object(
        'attempt', a_attempt, 'node', a_node, 'started_at', a_started, 'ended_at', clock_timestamp(), 'outcome', a_outcome, 'error', a_error)) AS v) x
$$;

CREATE FUNCTION workerd.lane_of(a_queue text, a_priority int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    found_id int;
BEGIN
    SELECT l.id INTO found_id FROM workerd.lane l WHERE l.queue = a_queue AND l.priority = a_priority;
    IF found_id IS NOT NULL THEN
        RETURN found_id;
    END IF;
    IF a_priority NOT BETWEEN -32768 AND 32767 THEN
        RAISE EXCEPTION 'priority % is not between -32768 and 32767', a_priority USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO workerd.queue (name) VALUES (a_queue) ON CONFLICT DO NOTHING;
    INSERT INTO workerd.lane (queue, priority) VALUES (a_queue, a_priority) ON CONFLICT DO NOTHING;
    PERFORM pg_notify('workerd', 'lanes');
    SELECT l.id INTO STRICT found_id FROM workerd.lane l WHERE l.queue = a_queue AND l.priority = a_priority;
    RETURN found_id;
END $$;

-- Puts a job into the queue and returns its id, or the id of the unfinished job that holds the same key.
CREATE FUNCTION workerd.enqueue(
    task text, payload jsonb DEFAULT '{}', queue text DEFAULT NULL, priority int DEFAULT NULL, run_at timestamptz DEFAULT NULL,
    key text DEFAULT NULL, max_retries int DEFAULT NULL, delay interval DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    declared_queue text;
    declared_priority int;
    to_lane int;
    due timestamptz := coalesce(enqueue.run_at, now() + enqueue.delay);
    new_id bigint;
    holder bigint;
BEGIN
    IF jsonb_typeof(enqueue.payload) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'the payload of % is not a JSON object of its arguments', enqueue.task USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF pg_column_size(enqueue.payload) > 1000000 AND octet_length(enqueue.payload::text) > 1000000 THEN
        RAISE EXCEPTION 'the payload of % is over 1 MB: store the data elsewhere and pass a reference', enqueue.task
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue.queue IS NULL OR enqueue.priority IS NULL THEN
        SELECT t.queue, t.priority INTO declared_queue, declared_priority FROM workerd.task t WHERE t.name = enqueue.task;
    END IF;
    to_lane := workerd.lane_of(coalesce(enqueue.queue, declared_queue, 'default'), coalesce(enqueue.priority, declared_priority, 0));
    new_id := nextval('workerd.job_id');
    IF enqueue.key IS NOT NULL THEN
        LOOP
            INSERT INTO workerd.key (key, id) VALUES (enqueue.key, new_id) ON CONFLICT DO NOTHING;
            EXIT WHEN FOUND;
            SELECT k.id INTO holder FROM workerd.key k WHERE k.key = enqueue.key;
            IF FOUND THEN
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
        PERFORM pg_notify('workerd', 'ready');
    END IF;
    RETURN new_id;
END $$;

-- Puts one job for each payload into the queue, all with the same options, and returns their ids in this order.
CREATE FUNCTION workerd.enqueue_many(
    task text, payloads text[], queue text DEFAULT NULL, priority int DEFAULT NULL, run_at timestamptz DEFAULT NULL,
    max_retries int DEFAULT NULL, delay interval DEFAULT NULL
) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    declared_queue text;
    declared_priority int;
    to_lane int;
    due timestamptz := coalesce(enqueue_many.run_at, now() + enqueue_many.delay);
BEGIN
    IF enqueue_many.queue IS NULL OR enqueue_many.priority IS NULL THEN
        SELECT t.queue, t.priority INTO declared_queue, declared_priority FROM workerd.task t WHERE t.name = enqueue_many.task;
    END IF;
    to_lane := workerd.lane_of(coalesce(enqueue_many.queue, declared_queue, 'default'), coalesce(enqueue_many.priority, declared_priority, 0));
    IF due > now() THEN
        RETURN QUERY INSERT INTO workerd.scheduled (id, lane, run_at, max_retries, task, payload)
        SELECT nextval('workerd.job_id'), to_lane, due, enqueue_many.max_retries, enqueue_many.task, p::jsonb
        FROM unnest(enqueue_many.payloads) AS p RETURNING id;
    ELSE
        RETURN QUERY INSERT INTO workerd.ready (lane, id, max_retries, task, payload)
        SELECT to_lane, nextval('workerd.job_id'), enqueue_many.max_retries, enqueue_many.task, p::jsonb
        FROM unnest(enqueue_many.payloads) AS p RETURNING id;
        PERFORM pg_notify('workerd', 'ready');
    END IF;
END $$;

-- Claims up to a_batch jobs of the first of a_lanes that has any from its low bound on. No row: all lanes are empty.
-- One row without an id: that lane has nothing for this node now; its pos is the highest one that need not be looked at again.
-- A node that was declared dead is refused (WD001): what it took would be taken back at once, and charged for it.
-- A job with a crash is claimed alone, and waits with what is behind it until the node says a_free; on its last chance it is passed over
-- unless a_alone (the node runs no other such job).
-- Payloads that could make up more than 512 kB a call are left out: the answer is sent before the commit, while the lane is locked.
CREATE FUNCTION workerd.claim(
    a_node bigint, a_n bigint, a_lanes int[], a_lows bigint[], a_batch int, a_tasks text[], a_free boolean, a_alone boolean, a_last_chance int
) RETURNS TABLE (lane int, pos bigint, id bigint, task text, attempt int, failures int, crashes smallint, max_retries smallint, key text,
    waited double precision, payload text)
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
    a_lane int;
    a_low bigint;
    taken int8multirange;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a claim needs READ COMMITTED';
    END IF;
    FOR i IN 1 .. cardinality(a_lanes) LOOP
        IF EXISTS (SELECT FROM workerd.ready r WHERE r.lane = a_lanes[i] AND r.pos >= a_lows[i]) THEN
            a_lane := a_lanes[i];
            a_low := a_lows[i];
            EXIT;
        END IF;
    END LOOP;
    IF a_lane IS NULL THEN
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM workerd.node d WHERE d.id = a_node AND d.dead_at IS NULL) THEN
        RAISE EXCEPTION 'node % was declared dead', a_node USING ERRCODE = 'WD001';
    END IF;
    -- The lock, the leases and the rows in three statements in this order: each snapshot sees what the former waited for.
    PERFORM workerd.lock_lane(a_lane);
    SELECT coalesce(range_agg(l.tickets), '{}') INTO taken FROM workerd.lease l WHERE l.lane = a_lane AND l.last >= a_low;
    RETURN QUERY
    WITH seen AS MATERIALIZED (
        SELECT r.* FROM workerd.ready r
        WHERE r.lane = a_lane AND r.pos >= a_low AND NOT r.pos <@ taken AND r.task = ANY (a_tasks)
            AND (r.crashes < a_last_chance OR a_alone)
        ORDER BY r.pos LIMIT a_batch),
    edge AS MATERIALIZED (SELECT min(pos) AS first, min(pos) FILTER (WHERE crashes > 0) AS crashed FROM seen),
    got AS MATERIALIZED (
        SELECT s.* FROM seen s, edge e
        WHERE e.crashed IS NULL OR s.pos < e.crashed OR (s.pos = e.crashed AND e.first = e.crashed AND a_free)),
    mine AS (
        INSERT INTO workerd.lease (node, n, lane, tickets, last)
        SELECT a_node, a_n, a_lane, range_agg(int8range(pos, pos + 1)), max(pos) FROM got HAVING count(*) > 0)
    SELECT a_lane, g.pos, g.id, g.task, g.attempt + 1, g.failures, g.crashes, g.max_retries, g.key,
        date_part('epoch', clock_timestamp() - g.queued_at), CASE WHEN pg_column_size(g.payload) <= 524288 / a_batch THEN g.payload::text END
    FROM got g ORDER BY g.pos;
    IF NOT FOUND THEN
        RETURN QUERY SELECT a_lane, coalesce(
            min(r.pos) FILTER (WHERE r.crashes > 0 AND NOT a_free AND NOT r.pos <@ taken AND r.task = ANY (a_tasks)) - 1, max(r.pos)), NULL::bigint, NULL, NULL::int, NULL::int, NULL::smallint, NULL::smallint, NULL, NULL::double precision, NULL
        FROM workerd.ready r WHERE r.lane = a_lane AND r.pos >= a_low;
    END IF;
END $$;

-- The payloads that a claim left out.
CREATE FUNCTION workerd.payloads(a_lane int, a_pos bigint[]) RETURNS TABLE (pos bigint, payload text)
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    SELECT r.pos, r.payload::text FROM workerd.ready r WHERE r.lane = a_lane AND r.pos = ANY (a_pos)
$$;

-- Ends attempts of leases of one node. Element by element: the lease and ticket, the outcome (succeeded, failed, cancelled, retry, snooze,
-- returned), result, error, seconds until the next attempt, seconds since it started, seconds to keep the job (NULL or 0: not at all), progress.
-- Returns the places in the arrays that were still owned; the others had been rescued and are dropped.
CREATE FUNCTION workerd.finish(
    a_node bigint, a_n bigint[], a_pos bigint[], a_outcome text[], a_result text[], a_error text[], a_delay double precision[],
    a_ran double precision[], a_ttl double precision[], a_progress real[]
) RETURNS int[]
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
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
        FROM unnest(a_n, a_pos, a_outcome, a_result, a_error, a_delay, a_ran, a_ttl, a_progress) WITH ORDINALITY
            AS d(n, pos, outcome, result, error, delay, ran, ttl, progress, place)
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
        RETURNING r.*, own.ends, own.result, own.error, own.delay, own.ran, own.ttl, own.progress),
    days AS MATERIALIZED (SELECT ttl, workerd.expiry(ttl) AS expires_on FROM (SELECT DISTINCT ttl FROM gone WHERE ttl > 0) t),
    kept AS (
        INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, max_retries, progress, node, enqueued_at,
            queued_at, started_at, task, key, payload, result, error, attempts)
        SELECT g.id, days.expires_on, g.lane, g.ends, g.attempt + 1, g.failures + (g.ends = 'failed')::int, g.crashes, g.max_retries, g.progress, a_node,
            g.enqueued_at, g.queued_at, moment - make_interval(secs => g.ran), g.task, g.key, g.payload, g.result::jsonb, g.error, g.attempts
        FROM gone g JOIN days ON days.ttl = g.ttl WHERE g.ends IN ('succeeded', 'failed', 'cancelled')),
    unlocked AS (DELETE FROM workerd.key k USING gone g WHERE g.key IS NOT NULL AND g.ends IN ('succeeded', 'failed', 'cancelled') AND k.key = g.key AND k.id = g.id),
    told AS (DELETE FROM workerd.progress p USING gone g WHERE g.progress IS NOT NULL AND p.id = g.id),
    again AS (
        SELECT g.*, g.attempt + 1 AS spent, g.failures + (g.ends = 'retry')::int AS failed_so_far,
            workerd.with_attempt(g.attempts, g.attempt + 1, (SELECT name FROM workerd.node WHERE id = a_node),
                moment - make_interval(secs => g.ran), CASE g.ends WHEN 'retry' THEN 'failed' ELSE 'snoozed' END, g.error) AS log
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

-- Ends attempts that leave nothing behind: succeeded, not kept, without a key, result or progress. Returns the tickets that were still
-- owned. What `finish` does, for the most frequent case at a fifth of its cost. Its plans are generic: to plan for 500 given tickets takes
-- longer than to delete them, and with index scans alone there is nothing to choose.
CREATE FUNCTION workerd.finish_plain(a_node bigint, a_n bigint[], a_pos bigint[]) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
    held workerd.lease;
    mine bigint[];
    ended int8multirange;
    owned bigint[] := '{}';
    gone int;
BEGIN
    FOR held IN SELECT * FROM workerd.lease l WHERE l.node = a_node AND l.n = ANY (a_n) ORDER BY l.n FOR UPDATE LOOP
        mine := array(SELECT d.pos FROM unnest(a_n, a_pos) AS d(n, pos) WHERE d.n = held.n AND held.tickets @> d.pos);
        CONTINUE WHEN mine = '{}';
        ended := workerd.set_of(mine);
        IF held.tickets <@ ended THEN
            DELETE FROM workerd.lease l WHERE l.node = a_node AND l.n = held.n;
        ELSE
            UPDATE workerd.lease l SET tickets = l.tickets - ended WHERE l.node = a_node AND l.n = held.n;
        END IF;
        DELETE FROM workerd.ready r WHERE r.lane = held.lane AND r.pos = ANY (mine);
        GET DIAGNOSTICS gone = ROW_COUNT;
        IF gone <> cardinality(mine) THEN
            RAISE EXCEPTION 'invariant broken: lease without ready row (% of %)', gone, cardinality(mine);
        END IF;
        owned := owned || mine;
    END LOOP;
    RETURN owned;
END $$;

-- Gives back jobs of one lease that were not started (NULL: all of it); nothing is spent. Returns the tickets that are free again.
CREATE FUNCTION workerd.give_back(a_node bigint, a_n bigint, a_pos bigint[], a_ttl double precision) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    held workerd.lease;
    back int8multirange;
BEGIN
    SELECT * INTO held FROM workerd.lease WHERE node = a_node AND n = a_n FOR UPDATE;
    IF NOT FOUND THEN
        RETURN '{}';
    END IF;
    back := CASE WHEN a_pos IS NULL THEN held.tickets ELSE workerd.set_of(a_pos) * held.tickets END;
    IF isempty(back) THEN
        RETURN '{}';
    END IF;
    IF held.tickets <@ back THEN
        DELETE FROM workerd.lease WHERE node = a_node AND n = a_n;
    ELSE
        UPDATE workerd.lease SET tickets = held.tickets - back WHERE node = a_node AND n = a_n;
    END IF;
    PERFORM workerd.drop_cancelled(held.lane, array(SELECT workerd.positions(back * held.cancel)), a_ttl);
    back := back - held.cancel;
    IF NOT isempty(back) THEN
        PERFORM pg_notify('workerd', format('rewind %s %s', held.lane, lower(back)));
    END IF;
    RETURN array(SELECT workerd.positions(back));
END $$;

-- Ends queued jobs as cancelled. The caller owns their lease row, or the lane's lock while no lease holds them.
CREATE FUNCTION workerd.drop_cancelled(a_lane int, a_pos bigint[], a_ttl double precision) RETURNS int
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    dropped int;
BEGIN
    WITH gone AS (DELETE FROM workerd.ready r WHERE r.lane = a_lane AND r.pos = ANY (a_pos) RETURNING r.*),
    unlocked AS (DELETE FROM workerd.key k USING gone g WHERE g.key IS NOT NULL AND k.key = g.key AND k.id = g.id),
    kept AS (
        INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, max_retries, enqueued_at, queued_at, task, key, payload, attempts)
        SELECT id, workerd.expiry(a_ttl), lane, 'cancelled', attempt, failures, crashes, max_retries, enqueued_at, queued_at, task, key, payload, attempts FROM gone)
    SELECT count(*) INTO dropped FROM gone;
    RETURN dropped;
END $$;

-- Moves one ticket into a lease of its own, so that a transaction that finishes the job blocks no other job of the batch.
CREATE FUNCTION workerd.split_lease(a_node bigint, a_n bigint, a_pos bigint, a_new bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    held workerd.lease;
    alone int8multirange := int8multirange(int8range(a_pos, a_pos + 1));
BEGIN
    SELECT * INTO held FROM workerd.lease WHERE node = a_node AND n = a_n AND tickets @> a_pos FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF held.tickets <@ alone THEN
        UPDATE workerd.lease SET n = a_new WHERE node = a_node AND n = a_n;
    ELSE
        UPDATE workerd.lease SET tickets = held.tickets - alone, cancel = held.cancel - alone WHERE node = a_node AND n = a_n;
        INSERT INTO workerd.lease (node, n, lane, tickets, cancel, last, claimed_at)
        VALUES (a_node, a_new, held.lane, alone, held.cancel * alone, a_pos, held.claimed_at);
    END IF;
    RETURN true;
END $$;

-- Takes back every lease whose node does not live, whenever it appeared. Jobs keep their ticket, so their place in line.
CREATE FUNCTION workerd.rescue(a_max_leases int, a_max_crashes int, a_ttl double precision)
RETURNS TABLE (node_name text, id bigint, task text, failed boolean)
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    held workerd.lease;
    owner text;
    lost bigint[];
BEGIN
    FOR held IN
        SELECT * FROM workerd.lease l WHERE NOT EXISTS (SELECT FROM workerd.node d WHERE d.id = l.node AND d.dead_at IS NULL)
        ORDER BY l.node, l.n LIMIT a_max_leases FOR UPDATE SKIP LOCKED
    LOOP
        DELETE FROM workerd.lease l WHERE l.node = held.node AND l.n = held.n;
        owner := coalesce((SELECT d.name FROM workerd.node d WHERE d.id = held.node), held.node::text);
        PERFORM workerd.drop_cancelled(held.lane, array(SELECT workerd.positions(held.tickets * held.cancel)), a_ttl);
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

-- Cancels a job: 'queued', 'scheduled' (it was, and is cancelled now), 'running' (its node is told), 'final', 'unknown',
-- or 'again': it moved meanwhile; call again in a new transaction.
CREATE FUNCTION workerd.cancel(a_id bigint, a_ttl double precision) RETURNS text
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    spot record;
    changed int;
BEGIN
    SELECT q.* INTO spot FROM (
        SELECT CASE WHEN e.node IS NULL THEN 'queued' ELSE 'running' END AS state, r.lane, r.pos, e.node, e.n
        FROM workerd.ready r LEFT JOIN workerd.lease e ON e.lane = r.lane AND e.last >= r.pos AND e.tickets @> r.pos WHERE r.id = a_id
        UNION ALL SELECT 'scheduled', s.lane, NULL, NULL, NULL FROM workerd.scheduled s WHERE s.id = a_id
        UNION ALL SELECT 'final', h.lane, NULL, NULL, NULL FROM workerd.history h WHERE h.id = a_id) q LIMIT 1;
    IF spot.state IS NULL THEN
        RETURN 'unknown';
    ELSIF spot.state = 'final' THEN
        RETURN 'final';
    ELSIF spot.state = 'running' THEN
        UPDATE workerd.lease SET cancel = cancel + int8multirange(int8range(spot.pos, spot.pos + 1))
        WHERE node = spot.node AND n = spot.n AND tickets @> spot.pos;
        GET DIAGNOSTICS changed = ROW_COUNT;
        PERFORM pg_notify('workerd', format('cancel %s', spot.node));
    ELSIF spot.state = 'scheduled' THEN
        WITH gone AS (DELETE FROM workerd.scheduled WHERE id = a_id RETURNING *),
        unlocked AS (DELETE FROM workerd.key k USING gone g WHERE g.key IS NOT NULL AND k.key = g.key AND k.id = g.id),
        kept AS (
            INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, max_retries, enqueued_at, queued_at, task, key, payload, attempts)
            SELECT id, workerd.expiry(a_ttl), lane, 'cancelled', attempt, failures, crashes, max_retries, enqueued_at, run_at, task, key, payload, attempts FROM gone)
        SELECT count(*) INTO changed FROM gone;
    ELSE
        PERFORM workerd.lock_lane(spot.lane);
        changed := workerd.drop_cancelled(spot.lane, array(
            SELECT spot.pos WHERE NOT EXISTS (SELECT FROM workerd.lease e WHERE e.lane = spot.lane AND e.last >= spot.pos AND e.tickets @> spot.pos)), a_ttl);
    END IF;
    RETURN CASE WHEN changed = 1 THEN spot.state ELSE 'again' END;
END $$;

-- Queues a failed, cancelled or scheduled job now, with all its retries. Returns the state it was in, or 'unknown', 'queued', 'running', 'succeeded'.
CREATE FUNCTION workerd.retry(a_id bigint) RETURNS text LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
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
                CASE WHEN started_at IS NULL THEN attempts ELSE coalesce(attempts, '[]') || jsonb_build_array(jsonb_build_object('attempt', attempt,
                    'node', (SELECT n.name FROM workerd.node n WHERE n.id = node), 'started_at', started_at, 'ended_at', finished_at,
                    'outcome', state, 'error', error)) END
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

-- Queues what is due. Returns how many, and the seconds until the next one (NULL: none waits).
CREATE FUNCTION workerd.stage(a_rows int, OUT staged int, OUT next_in double precision) LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
DECLARE
    moment timestamptz := clock_timestamp();  -- a value, which the index can be asked for
BEGIN
    WITH due AS (
        DELETE FROM workerd.scheduled WHERE id = ANY (ARRAY(
            SELECT s.id FROM workerd.scheduled s WHERE s.run_at <= moment ORDER BY s.run_at LIMIT a_rows FOR UPDATE SKIP LOCKED)) RETURNING *)
    INSERT INTO workerd.ready (lane, id, attempt, failures, crashes, max_retries, task, key, enqueued_at, queued_at, payload, attempts)
    SELECT lane, id, attempt, failures, crashes, max_retries, task, key, enqueued_at, run_at, payload, attempts FROM due ORDER BY run_at, id;
    GET DIAGNOSTICS staged = ROW_COUNT;
    IF staged > 0 THEN
        PERFORM pg_notify('workerd', 'ready');
    END IF;
    SELECT extract(epoch FROM min(s.run_at) - clock_timestamp()) INTO next_in FROM workerd.scheduled s;
END $$;

-- Makes the partitions for jobs that finish within the next two days with one of these TTLs (seconds).
CREATE FUNCTION workerd.add_history_days(a_ttls double precision[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    d date;
    part text;
BEGIN
    FOR d IN
        SELECT DISTINCT (now() AT TIME ZONE 'UTC' + make_interval(secs => ttl))::date + ahead
        FROM unnest(a_ttls) ttl, generate_series(1, 3) ahead
        EXCEPT SELECT day FROM workerd.history_day ORDER BY 1
    LOOP
        -- attached afterwards: that takes a lock which lets others read and write the parent
        part := 'history_' || to_char(d, 'YYYYMMDD');
        EXECUTE format('CREATE TABLE workerd.%I (LIKE workerd.history INCLUDING ALL)', part);
        EXECUTE format('ALTER TABLE workerd.history ATTACH PARTITION workerd.%I FOR VALUES FROM (%L) TO (%L)', part, d, d + 1);
        INSERT INTO workerd.history_day VALUES (d);
    END LOOP;
END $$;

-- Every job, wherever it is; the running attempt counts as begun.
CREATE VIEW workerd.job AS
SELECT r.id, r.task, l.queue, CASE WHEN e.node IS NULL THEN 'queued' ELSE 'running' END AS state, l.priority::int AS priority, r.payload,
    NULL::jsonb AS result, NULL::text AS error, r.attempt + (e.node IS NOT NULL)::int AS attempt, r.failures,
    coalesce(r.max_retries, t.max_retries)::int AS max_retries, p.fraction AS progress, p.message, r.key, r.enqueued_at, r.queued_at AS run_at,
    e.claimed_at AS started_at, NULL::timestamptz AS finished_at, n.name AS node, r.attempts
FROM workerd.ready r JOIN workerd.lane l ON l.id = r.lane LEFT JOIN workerd.task t ON t.name = r.task
LEFT JOIN workerd.lease e ON e.lane = r.lane AND e.last >= r.pos AND e.tickets @> r.pos
LEFT JOIN workerd.node n ON n.id = e.node LEFT JOIN workerd.progress p ON p.id = r.id
UNION ALL
SELECT s.id, s.task, l.queue, 'scheduled', l.priority, s.payload, NULL, s.attempts -> -1 ->> 'error', s.attempt, s.failures,
    coalesce(s.max_retries, t.max_retries), NULL, NULL, s.key, s.enqueued_at, s.run_at, NULL, NULL, NULL, s.attempts
FROM workerd.scheduled s JOIN workerd.lane l ON l.id = s.lane LEFT JOIN workerd.task t ON t.name = s.task
UNION ALL
SELECT h.id, h.task, l.queue, h.state, l.priority, h.payload, h.result, h.error, h.attempt, h.failures,
    coalesce(h.max_retries, t.max_retries), h.progress, NULL, h.key, h.enqueued_at, h.queued_at, h.started_at, h.finished_at, n.name, h.attempts
FROM workerd.history h JOIN workerd.lane l ON l.id = h.lane LEFT JOIN workerd.task t ON t.name = h.task LEFT JOIN workerd.node n ON n.id = h.node;

CREATE VIEW workerd.task_queue AS
SELECT id, task AS task_type, state AS status, priority, payload, result, error AS error_message, attempt, max_retries,
    enqueued_at AS created_at, started_at, finished_at AS completed_at, node AS worker
FROM workerd.job;

SELECT workerd.add_history_days('{604800, 2592000}');
