-- What only some jobs are asked for: other jobs to wait for, limits, a node, a deadline, a key that goes earlier. Jobs that ask for nothing
-- pay nothing: a claim looks at no table of these, a finish at one index that is empty.

-- part: ready: a column that is empty in most rows
SET LOCAL lock_timeout = '3s';
LOCK TABLE workerd.ready IN SHARE UPDATE EXCLUSIVE MODE;
SET LOCAL lock_timeout = '100ms';
ALTER TABLE workerd.ready ADD COLUMN options jsonb;      -- deadline, key_until, prefer, batch; `limited` while it holds a slot

-- part: history: the same
SET LOCAL lock_timeout = '3s';
LOCK TABLE workerd.history IN SHARE UPDATE EXCLUSIVE MODE;
SET LOCAL lock_timeout = '100ms';
ALTER TABLE workerd.history ADD COLUMN options jsonb;

-- part: scheduled: the same, and what a job waits for besides its time
SET LOCAL lock_timeout = '3s';
LOCK TABLE workerd.scheduled IN SHARE UPDATE EXCLUSIVE MODE;
SET LOCAL lock_timeout = '100ms';
ALTER TABLE workerd.scheduled
    ADD COLUMN options jsonb,
    ADD COLUMN waits text,                               -- NULL: for its time; 'jobs': for other jobs; 'limit': for its turn
    ADD COLUMN line text,                                -- whose turn: the value of the task's limit key
    ADD CONSTRAINT scheduled_waits CHECK ((waits IS NULL OR waits IN ('jobs', 'limit')) AND (waits IS NOT DISTINCT FROM 'limit') = (line IS NOT NULL)) NOT VALID;

-- part: lanes of nodes, limits, ageing
-- A lane of a node holds what is pinned to it: others do not see it, so that claims never skip.
ALTER TABLE workerd.lane
    ADD COLUMN node text CHECK (node <> ''),
    ADD COLUMN limited boolean NOT NULL DEFAULT false,   -- its queue has a limit: jobs enter by admission alone
    DROP CONSTRAINT lane_queue_priority_key,
    ADD CONSTRAINT lane_place UNIQUE NULLS NOT DISTINCT (queue, priority, node);
ALTER TABLE workerd.task
    ADD COLUMN limited boolean NOT NULL DEFAULT false,   -- the same for the task
    ADD COLUMN limit_key text;                           -- the argument by whose values its jobs take turns
ALTER TABLE workerd.queue ADD COLUMN ageing double precision CHECK (ageing > 0);  -- seconds for which a job waits until its priority rises by one

-- part: tables of dependencies and limits
CREATE TABLE workerd.dependency (
    child bigint NOT NULL,
    parent bigint NOT NULL,
    ended text CHECK (ended IN ('succeeded', 'failed', 'cancelled')),
    news boolean NOT NULL DEFAULT false,                 -- ended, and not yet looked at
    PRIMARY KEY (child, parent)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX dependency_parent ON workerd.dependency (parent);
CREATE INDEX dependency_open ON workerd.dependency (parent) WHERE ended IS NULL;
CREATE INDEX dependency_news ON workerd.dependency (child) WHERE news;

-- A parent that ended while its child was being enqueued could not see it. So each child is looked at twice: soon, and when every
-- transaction has ended that ran then.
CREATE TABLE workerd.unlooked (
    child bigint PRIMARY KEY,
    xid bigint,                                          -- NULL: not looked at yet; those below must have ended before the second look
    at timestamptz NOT NULL DEFAULT now()
);

-- A limit of a queue, of a task, or of each value of a task's limit key. What an operator sets goes before what the code declares.
CREATE TABLE workerd.limits (
    scope text NOT NULL CHECK (scope IN ('queue', 'task', 'key')),
    name text NOT NULL CHECK (name <> ''),
    origin text NOT NULL CHECK (origin IN ('declared', 'operator')),
    rate double precision CHECK (rate > 0),              -- jobs that start in a second
    concurrency int CHECK (concurrency > 0),             -- jobs that run at a time
    PRIMARY KEY (scope, name, origin)
);
CREATE VIEW workerd.limit_in_force AS
SELECT DISTINCT ON (scope, name) scope, name, origin, rate, concurrency FROM workerd.limits ORDER BY scope, name, origin DESC;

-- Tokens of the limits with a rate: a start takes one.
CREATE TABLE workerd.bucket (
    scope text NOT NULL, name text NOT NULL, line text NOT NULL,
    tokens double precision NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (scope, name, line)
) WITH (fillfactor = 50);

-- Limited jobs that were admitted, until they are seen to be neither queued nor running.
CREATE TABLE workerd.slot (
    id bigint PRIMARY KEY,
    task text NOT NULL,
    queue text NOT NULL,
    line text NOT NULL
) WITH (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX slot_task ON workerd.slot (task, line);
CREATE INDEX slot_queue ON workerd.slot (queue);

-- Whose turn it was last: lines of one task in one lane are served in turn.
CREATE TABLE workerd.turn (lane int NOT NULL, task text NOT NULL, line text NOT NULL, PRIMARY KEY (lane, task)) WITH (fillfactor = 50);

-- part outside of a transaction: scheduled: what waits for its time alone is found by its time, what waits for its turn by its line
DROP INDEX CONCURRENTLY IF EXISTS workerd.scheduled_due;
CREATE INDEX CONCURRENTLY scheduled_due ON workerd.scheduled (run_at) WHERE waits IS NULL;
DROP INDEX CONCURRENTLY IF EXISTS workerd.scheduled_line;
CREATE INDEX CONCURRENTLY scheduled_line ON workerd.scheduled (task, lane, line, run_at, id) WHERE waits = 'limit';
ALTER TABLE workerd.scheduled VALIDATE CONSTRAINT scheduled_waits;

-- part: functions
-- Wakes the leader, which holds a shared lock while it sleeps. Its key lies beyond those of the lanes.
CREATE FUNCTION workerd.wake_leader() RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN pg_try_advisory_lock('workerd.queue'::regclass::oid::int, 64)
        THEN NOT pg_advisory_unlock('workerd.queue'::regclass::oid::int, 64) ELSE pg_notify('workerd', 'admit') IS NOT NULL END
$$;

-- Jobs have ended: those that wait for them learn it.
CREATE FUNCTION workerd.tell_children(a_ids bigint[], a_state text) RETURNS void
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off AS $$
BEGIN
    UPDATE workerd.dependency d SET ended = a_state, news = true WHERE d.parent = ANY (a_ids) AND d.ended IS NULL;
    IF FOUND THEN
        PERFORM workerd.wake_leader();
    END IF;
END $$;

CREATE FUNCTION workerd.has_children() RETURNS boolean LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
BEGIN
    RETURN EXISTS (SELECT FROM workerd.dependency WHERE ended IS NULL);
END $$;

CREATE FUNCTION workerd.is_limited(a_lane int, a_task text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM workerd.lane l WHERE l.id = a_lane AND l.limited) OR EXISTS (SELECT FROM workerd.task t WHERE t.name = a_task AND t.limited)
$$;

CREATE FUNCTION workerd.line_of(a_task text, a_payload jsonb) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT a_payload ->> t.limit_key FROM workerd.task t WHERE t.name = a_task), '')
$$;

DROP FUNCTION workerd.lane_of;
CREATE FUNCTION workerd.lane_of(a_queue text, a_priority int, a_node text DEFAULT NULL) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    found_id int;
BEGIN
    SELECT l.id INTO found_id FROM workerd.lane l WHERE l.queue = a_queue AND l.priority = a_priority AND l.node IS NOT DISTINCT FROM a_node;
    IF found_id IS NOT NULL THEN
        RETURN found_id;
    END IF;
    IF a_priority NOT BETWEEN -32768 AND 32767 THEN
        RAISE EXCEPTION 'priority % is not between -32768 and 32767', a_priority USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO workerd.queue (name) VALUES (a_queue) ON CONFLICT DO NOTHING;
    INSERT INTO workerd.lane (queue, priority, node, limited)
    VALUES (a_queue, a_priority, a_node, EXISTS (SELECT FROM workerd.limit_in_force f WHERE f.scope = 'queue' AND f.name = a_queue
        AND (f.rate IS NOT NULL OR f.concurrency IS NOT NULL))) ON CONFLICT DO NOTHING;
    PERFORM pg_notify('workerd', 'lanes');
    SELECT l.id INTO STRICT found_id FROM workerd.lane l
    WHERE l.queue = a_queue AND l.priority = a_priority AND l.node IS NOT DISTINCT FROM a_node;
    RETURN found_id;
END $$;

DROP FUNCTION workerd.lane_for;
CREATE FUNCTION workerd.lane_for(a_task text, a_queue text, a_priority int, a_node text DEFAULT NULL) RETURNS int LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    to_queue text := a_queue;
    to_priority int := a_priority;
BEGIN
    IF a_queue IS NULL OR a_priority IS NULL THEN
        SELECT coalesce(a_queue, t.queue), coalesce(a_priority, t.priority) INTO to_queue, to_priority FROM workerd.task t WHERE t.name = a_task;
    END IF;
    RETURN workerd.lane_of(coalesce(to_queue, a_queue, 'default'), coalesce(to_priority, a_priority, 0), a_node);
END $$;

-- Changes a job that has not started; NULL leaves a value as it is. Returns the state that it was in, and then nothing was changed where it
-- is 'running', 'final' or 'unknown'; or 'again': it moved meanwhile.
-- A queued job is changed under the lock of its lane, which is held until the transaction ends.
CREATE FUNCTION workerd.change(
    a_id bigint, a_payload jsonb DEFAULT NULL, a_lane int DEFAULT NULL, a_run_at timestamptz DEFAULT NULL, a_max_retries int DEFAULT NULL
) RETURNS text LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    spot record;
    was text;
    changed int;
    to_lane int;
BEGIN
    UPDATE workerd.scheduled s SET payload = coalesce(a_payload, s.payload), lane = coalesce(a_lane, s.lane), run_at = coalesce(a_run_at, s.run_at),
        max_retries = coalesce(a_max_retries, s.max_retries),
        waits = CASE WHEN s.waits = 'limit' THEN NULL ELSE s.waits END, line = NULL  -- it is staged anew, into whichever line is its own now
    FROM workerd.scheduled o WHERE s.id = a_id AND o.id = s.id
    RETURNING CASE o.waits WHEN 'jobs' THEN 'blocked' WHEN 'limit' THEN 'queued' ELSE 'scheduled' END INTO was;
    IF was IS NOT NULL THEN
        PERFORM workerd.wake_leader();
        RETURN was;
    END IF;
    SELECT q.* INTO spot FROM (
        SELECT CASE WHEN e.node IS NULL THEN 'queued' ELSE 'running' END AS state, r.lane, r.pos
        FROM workerd.ready r LEFT JOIN workerd.lease e ON e.lane = r.lane AND e.last >= r.pos AND e.tickets @> r.pos WHERE r.id = a_id
        UNION ALL SELECT 'final', h.lane, NULL FROM workerd.history h WHERE h.id = a_id) q LIMIT 1;
    IF spot.state IS DISTINCT FROM 'queued' THEN
        RETURN coalesce(spot.state, CASE WHEN EXISTS (SELECT FROM workerd.scheduled s WHERE s.id = a_id) THEN 'again' ELSE 'unknown' END);
    END IF;
    PERFORM workerd.lock_lane(spot.lane);
    IF EXISTS (SELECT FROM workerd.lease e WHERE e.lane = spot.lane AND e.last >= spot.pos AND e.tickets @> spot.pos) THEN
        RETURN 'again';
    END IF;
    to_lane := coalesce(a_lane, spot.lane);
    IF a_run_at > now() OR to_lane <> spot.lane THEN  -- staged into the other lane, whose limits may differ
        WITH gone AS (DELETE FROM workerd.ready r WHERE r.lane = spot.lane AND r.pos = spot.pos RETURNING r.*)
        INSERT INTO workerd.scheduled (id, lane, run_at, attempt, failures, crashes, max_retries, task, key, enqueued_at, payload, attempts, options)
        SELECT id, to_lane, coalesce(a_run_at, g.queued_at), attempt, failures, crashes, coalesce(a_max_retries, max_retries), task, key, enqueued_at,
            coalesce(a_payload, payload), attempts, nullif(options - 'limited', '{}') FROM gone g;
    ELSE
        UPDATE workerd.ready r SET payload = coalesce(a_payload, r.payload), max_retries = coalesce(a_max_retries, r.max_retries)
        WHERE r.lane = spot.lane AND r.pos = spot.pos;
    END IF;
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM workerd.wake_leader();
    RETURN CASE WHEN changed = 1 THEN 'queued' ELSE 'again' END;
END $$;

-- Puts a job into the queue and returns its id, or the id of the unfinished job that holds the same key.
-- conflict: what becomes of that one: 'keep', 'replace' (it gets this payload, place and time), 'reschedule' (this time alone).
-- after: jobs to wait for. after_need: 'all' or 'any' of them; after_end: 'succeeded', or 'finished', however they end.
-- deadline: when it has not started by then it is cancelled. pin: the node that is to run it; prefer: the one that may have it first.
DROP FUNCTION workerd.enqueue;
CREATE FUNCTION workerd.enqueue(
    task text, payload jsonb DEFAULT '{}', queue text DEFAULT NULL, priority int DEFAULT NULL, run_at timestamptz DEFAULT NULL,
    key text DEFAULT NULL, max_retries int DEFAULT NULL, delay interval DEFAULT NULL,
    after bigint[] DEFAULT NULL, after_need text DEFAULT 'all', after_end text DEFAULT 'succeeded',
    conflict text DEFAULT 'keep', key_until text DEFAULT 'finished', deadline timestamptz DEFAULT NULL,
    pin text DEFAULT NULL, prefer text DEFAULT NULL, batch boolean DEFAULT false
) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    to_lane int;
    due timestamptz := coalesce(enqueue.run_at, now() + enqueue.delay);
    new_id bigint;
    holder bigint;
    state text;
    asked jsonb;
BEGIN
    IF jsonb_typeof(enqueue.payload) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'the payload of % is not a JSON object of its arguments', enqueue.task USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF pg_column_size(enqueue.payload) > 100000 AND octet_length(enqueue.payload::text) > 1000000 THEN
        RAISE EXCEPTION 'the payload of % is over 1 MB: store the data elsewhere and pass a reference', enqueue.task
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue.conflict NOT IN ('keep', 'replace', 'reschedule') OR enqueue.key_until NOT IN ('finished', 'started')
        OR enqueue.after_need NOT IN ('all', 'any') OR enqueue.after_end NOT IN ('succeeded', 'finished') THEN
        RAISE EXCEPTION 'conflict is keep, replace or reschedule; key_until finished or started; after_need all or any; after_end succeeded or finished'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    to_lane := workerd.lane_for(enqueue.task, enqueue.queue, enqueue.priority, coalesce(enqueue.pin, enqueue.prefer));
    new_id := nextval('workerd.job_id');
    IF enqueue.key IS NOT NULL THEN
        LOOP
            INSERT INTO workerd.key (key, id) VALUES (enqueue.key, new_id) ON CONFLICT DO NOTHING;
            EXIT WHEN FOUND;
            holder := workerd.key_holder(enqueue.key);
            IF holder IS NOT NULL THEN
                state := 'kept';
                IF enqueue.conflict = 'replace' THEN
                    state := workerd.change(holder, enqueue.payload, to_lane, coalesce(due, now()), enqueue.max_retries);
                ELSIF enqueue.conflict = 'reschedule' THEN
                    state := workerd.change(holder, a_run_at => coalesce(due, now()));
                END IF;
                IF state NOT IN ('final', 'unknown', 'again') THEN
                    RETURN holder;
                END IF;
            END IF;  -- the holder finished or moved between two statements: try again
        END LOOP;
    END IF;
    asked := nullif(jsonb_strip_nulls(jsonb_build_object('deadline', extract(epoch FROM enqueue.deadline),
        'key_until', nullif(enqueue.key_until, 'finished'), 'prefer', CASE WHEN enqueue.pin IS NULL THEN enqueue.prefer END,
        'batch', nullif(enqueue.batch, false),
        'after', CASE WHEN cardinality(enqueue.after) > 0 OR enqueue.batch THEN jsonb_build_array(enqueue.after_need, enqueue.after_end) END)), '{}');
    IF cardinality(enqueue.after) > 0 OR enqueue.batch THEN
        PERFORM workerd.depend(new_id, enqueue.after);
        INSERT INTO workerd.scheduled (id, lane, run_at, max_retries, task, key, payload, options, waits)
        VALUES (new_id, to_lane, coalesce(due, now()), enqueue.max_retries, enqueue.task, enqueue.key, enqueue.payload, asked, 'jobs');
        PERFORM workerd.wake_leader();
    ELSIF due > now() THEN
        INSERT INTO workerd.scheduled (id, lane, run_at, max_retries, task, key, payload, options)
        VALUES (new_id, to_lane, due, enqueue.max_retries, enqueue.task, enqueue.key, enqueue.payload, asked);
    ELSIF workerd.is_limited(to_lane, enqueue.task) THEN
        INSERT INTO workerd.scheduled (id, lane, run_at, max_retries, task, key, payload, options, waits, line)
        VALUES (new_id, to_lane, now(), enqueue.max_retries, enqueue.task, enqueue.key, enqueue.payload, asked, 'limit',
            workerd.line_of(enqueue.task, enqueue.payload));
        PERFORM workerd.wake_leader();
    ELSE
        INSERT INTO workerd.ready (lane, id, max_retries, task, key, payload, options)
        VALUES (to_lane, new_id, enqueue.max_retries, enqueue.task, enqueue.key, enqueue.payload, asked);
        PERFORM workerd.wake(to_lane);
    END IF;
    RETURN new_id;
END $$;

-- The jobs that a new one waits for, each once.
CREATE FUNCTION workerd.depend(a_child bigint, a_parents bigint[]) RETURNS void LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
DECLARE
    missing bigint;
BEGIN
    SELECT p INTO missing FROM unnest(a_parents) p
    WHERE p IS NULL OR NOT EXISTS (SELECT FROM workerd.ready r WHERE r.id = p) AND NOT EXISTS (SELECT FROM workerd.scheduled s WHERE s.id = p)
        AND NOT EXISTS (SELECT FROM workerd.history h WHERE h.id = p) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'after: there is no job % (never enqueued, or it is not kept any more)', missing USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO workerd.dependency (child, parent) SELECT DISTINCT a_child, p FROM unnest(a_parents) p;
    INSERT INTO workerd.unlooked (child) VALUES (a_child);
END $$;

DROP FUNCTION workerd.enqueue_many;
CREATE FUNCTION workerd.enqueue_many(
    task text, payloads text[], queue text DEFAULT NULL, priority int DEFAULT NULL, run_at timestamptz DEFAULT NULL,
    max_retries int DEFAULT NULL, delay interval DEFAULT NULL,
    after bigint[] DEFAULT NULL, after_need text DEFAULT 'all', after_end text DEFAULT 'succeeded', deadline timestamptz DEFAULT NULL,
    pin text DEFAULT NULL, prefer text DEFAULT NULL
) RETURNS SETOF bigint LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    to_lane int := workerd.lane_for(enqueue_many.task, enqueue_many.queue, enqueue_many.priority, coalesce(enqueue_many.pin, enqueue_many.prefer));
    due timestamptz := coalesce(enqueue_many.run_at, now() + enqueue_many.delay);
    limited boolean := workerd.is_limited(to_lane, enqueue_many.task);
    asked jsonb;
    new_ids bigint[];
BEGIN
    IF enqueue_many.after_need NOT IN ('all', 'any') OR enqueue_many.after_end NOT IN ('succeeded', 'finished') THEN
        RAISE EXCEPTION 'after_need is all or any; after_end succeeded or finished' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    asked := nullif(jsonb_strip_nulls(jsonb_build_object('deadline', extract(epoch FROM enqueue_many.deadline),
        'prefer', CASE WHEN enqueue_many.pin IS NULL THEN enqueue_many.prefer END,
        'after', CASE WHEN cardinality(enqueue_many.after) > 0 THEN jsonb_build_array(enqueue_many.after_need, enqueue_many.after_end) END)), '{}');
    IF cardinality(enqueue_many.after) > 0 THEN
        new_ids := array(SELECT nextval('workerd.job_id') FROM unnest(enqueue_many.payloads));
        IF cardinality(new_ids) = 0 THEN
            RETURN;
        END IF;
        PERFORM workerd.depend(new_ids[1], enqueue_many.after);  -- which looks whether they exist
        INSERT INTO workerd.dependency (child, parent)
            SELECT c, p FROM unnest(new_ids[2:]) c, (SELECT DISTINCT p FROM unnest(enqueue_many.after) p) AS parents(p);
        INSERT INTO workerd.unlooked (child) SELECT unnest(new_ids[2:]);
        RETURN QUERY INSERT INTO workerd.scheduled (id, lane, run_at, max_retries, task, payload, options, waits)
        SELECT new, to_lane, coalesce(due, now()), enqueue_many.max_retries, enqueue_many.task, p::jsonb, asked, 'jobs'
        FROM unnest(new_ids, enqueue_many.payloads) AS u(new, p) RETURNING id;
        PERFORM workerd.wake_leader();
    ELSIF due > now() OR limited THEN
        RETURN QUERY INSERT INTO workerd.scheduled (id, lane, run_at, max_retries, task, payload, options, waits, line)
        SELECT nextval('workerd.job_id'), to_lane, coalesce(due, now()), enqueue_many.max_retries, enqueue_many.task, p::jsonb, asked,
            CASE WHEN limited AND (due <= now()) IS NOT FALSE THEN 'limit' END,
            CASE WHEN limited AND (due <= now()) IS NOT FALSE THEN workerd.line_of(enqueue_many.task, p::jsonb) END
        FROM unnest(enqueue_many.payloads) AS p RETURNING id;
        IF limited THEN
            PERFORM workerd.wake_leader();
        END IF;
    ELSE
        RETURN QUERY INSERT INTO workerd.ready (lane, id, max_retries, task, payload, options)
        SELECT to_lane, nextval('workerd.job_id'), enqueue_many.max_retries, enqueue_many.task, p::jsonb, asked
        FROM unnest(enqueue_many.payloads) AS p RETURNING id;
        PERFORM workerd.wake(to_lane);
    END IF;
END $$;

-- As before; `limited`: the rows are not the caller's to place.
DROP FUNCTION workerd.reserve;
CREATE FUNCTION workerd.reserve(
    a_jobs int, a_task text, a_queue text, a_priority int, a_run_at timestamptz, a_delay interval,
    OUT lane int, OUT due timestamptz, OUT ids bigint[], OUT limited boolean
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    lane := workerd.lane_for(a_task, a_queue, a_priority);
    limited := workerd.is_limited(lane, a_task);
    due := coalesce(a_run_at, now() + a_delay);
    IF due <= now() THEN
        due := NULL;
    END IF;
    IF due IS NOT NULL OR NOT limited THEN
        ids := array(SELECT nextval('workerd.job_id') FROM generate_series(1, a_jobs));
    END IF;
END $$;

-- What a claim says of a job's options: them, and the seconds that are left until its deadline.
CREATE FUNCTION workerd.asked_now(a_options jsonb) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
    SELECT jsonb_build_array(a_options, (a_options -> 'deadline')::double precision - extract(epoch FROM clock_timestamp()))
$$;

CREATE OR REPLACE FUNCTION workerd.claim(
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
        jsonb_agg(jsonb_build_array(s.pos, s.attempt, s.failures, s.crashes, s.max_retries, s.key)
            || CASE WHEN s.options IS NULL THEN '[]' ELSE workerd.asked_now(s.options) END)
            FILTER (WHERE s.attempt > 0 OR s.crashes > 0 OR s.max_retries IS NOT NULL OR s.key IS NOT NULL OR s.options IS NOT NULL),
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

CREATE OR REPLACE FUNCTION workerd.finish_succeeded(
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
    parents bigint[];
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
        IF workerd.has_children() THEN
            WITH gone AS (
                DELETE FROM workerd.ready r USING unnest(plain) e WHERE r.lane = held.lane AND r.pos >= lower(e) AND r.pos < upper(e) RETURNING r.id)
            SELECT array_agg(id), count(*) INTO parents, moved FROM gone;
            PERFORM workerd.tell_children(parents, 'succeeded');
        ELSE
            DELETE FROM workerd.ready r USING unnest(plain) e WHERE r.lane = held.lane AND r.pos >= lower(e) AND r.pos < upper(e);
            GET DIAGNOSTICS moved = ROW_COUNT;
        END IF;
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
            queued_at, started_at, task, key, payload, result, error, fingerprint, attempts, options)
        SELECT g.id, days.expires_on, g.lane, g.ends, g.attempt + 1, g.failures + (g.ends = 'failed')::int, g.crashes, g.max_retries, g.progress, a_node,
            g.enqueued_at, g.queued_at, moment - make_interval(secs => g.ran), g.task, g.key, g.payload, g.result::jsonb, g.error, CASE WHEN g.ends = 'failed' THEN g.fingerprint END, g.attempts, nullif(g.options - 'limited', '{}')
        FROM gone g JOIN days ON days.ttl = g.ttl WHERE g.ends IN ('succeeded', 'failed', 'cancelled')),
    unlocked AS (DELETE FROM workerd.key k USING gone g WHERE g.key IS NOT NULL AND g.ends IN ('succeeded', 'failed', 'cancelled') AND k.key = g.key AND k.id = g.id),
    told AS (DELETE FROM workerd.progress p USING gone g WHERE g.progress IS NOT NULL AND p.id = g.id),
    again AS (
        SELECT g.*, g.attempt + 1 AS spent, g.failures + (g.ends = 'retry')::int AS failed_so_far,
            workerd.with_attempt(g.attempts, g.attempt + 1, (SELECT name FROM workerd.node WHERE id = a_node),
                moment - make_interval(secs => g.ran), CASE g.ends WHEN 'retry' THEN 'failed' ELSE 'snoozed' END, g.error, g.fingerprint) AS log
        FROM gone g WHERE g.ends IN ('retry', 'snooze')),
    later AS (  -- a limited one has its turn anew, if only to be staged at once
        INSERT INTO workerd.scheduled (id, lane, run_at, attempt, failures, crashes, max_retries, task, key, enqueued_at, payload, attempts, options)
        SELECT id, lane, clock_timestamp() + make_interval(secs => delay), spent, failed_so_far, crashes, max_retries, task, key, enqueued_at, payload, log,
            nullif(options - 'limited', '{}')
        FROM again WHERE delay > 0 OR options ? 'limited'),
    at_once AS (
        INSERT INTO workerd.ready (id, lane, attempt, failures, crashes, max_retries, task, key, enqueued_at, payload, attempts, options)
        SELECT id, lane, spent, failed_so_far, crashes, max_retries, task, key, enqueued_at, payload, log, options
        FROM again WHERE delay <= 0 AND (options ? 'limited') IS NOT TRUE)
    SELECT array_agg(own.place::int ORDER BY own.place), (SELECT count(*) FROM gone) + (SELECT count(*) FROM back),
        (SELECT count(*) FROM gone g WHERE g.options ? 'limited'),
        CASE WHEN workerd.has_children() THEN (SELECT jsonb_object_agg(e.ends, e.ids) FROM (
            SELECT g.ends, jsonb_agg(g.id) AS ids FROM gone g WHERE g.ends IN ('succeeded', 'failed', 'cancelled') GROUP BY g.ends) e) END
    INTO owned, moved, freed, parents FROM own;
    IF freed > 0 THEN
        PERFORM workerd.wake_leader();
    END IF;
    IF moved IS DISTINCT FROM coalesce(cardinality(owned), 0) THEN
        RAISE EXCEPTION 'invariant broken: lease without ready row (% of %)', moved, cardinality(owned);
    END IF;
    IF parents IS NOT NULL THEN
        PERFORM workerd.tell_children(ARRAY(SELECT jsonb_array_elements(e.value)::bigint), e.key) FROM jsonb_each(parents) e;
    END IF;
    RETURN coalesce(owned, '{}');
END $$;

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

CREATE OR REPLACE FUNCTION workerd.rescue(a_max_leases int, a_max_crashes int, a_ttl double precision)
RETURNS TABLE (node_name text, id bigint, task text, failed boolean)
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    held workerd.lease;
    owner text;
    dropped bigint[];
    lost bigint[];
    failed_ids bigint[];
    failed_tasks text[];
BEGIN
    FOR held IN
        SELECT * FROM workerd.lease l WHERE NOT EXISTS (SELECT FROM workerd.node d WHERE d.id = l.node AND d.dead_at IS NULL)
        ORDER BY l.node, l.n LIMIT a_max_leases FOR UPDATE SKIP LOCKED
    LOOP
        DELETE FROM workerd.lease l WHERE l.node = held.node AND l.n = held.n;
        owner := coalesce((SELECT d.name FROM workerd.node d WHERE d.id = held.node), held.node::text);
        -- whether it ran nobody knows: the attempt counts, as below
        dropped := array(SELECT workerd.positions(held.tickets * held.cancel));
        UPDATE workerd.ready r SET attempt = r.attempt + 1, crashes = r.crashes + 1, attempts = workerd.with_attempt(r.attempts, r.attempt + 1,
            owner, held.claimed_at, 'crashed', format('node %s died', owner))
        WHERE r.lane = held.lane AND r.pos = ANY (dropped);
        PERFORM workerd.drop_cancelled(held.lane, dropped, a_ttl);
        lost := array(SELECT workerd.positions(held.tickets - held.cancel));
        WITH gone AS (
            DELETE FROM workerd.ready r WHERE r.lane = held.lane AND r.pos = ANY (lost) AND r.crashes + 1 >= a_max_crashes RETURNING r.*),
        unlocked AS (DELETE FROM workerd.key k USING gone g WHERE g.key IS NOT NULL AND k.key = g.key AND k.id = g.id),
        kept AS (
            INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, max_retries, node, enqueued_at, queued_at,
                started_at, task, key, payload, error, attempts, options)
            SELECT g.id, workerd.expiry(a_ttl), g.lane, 'failed', g.attempt + 1, g.failures, g.crashes + 1, g.max_retries, held.node, g.enqueued_at, g.queued_at,
                held.claimed_at, g.task, g.key, g.payload, format('its node died %s times while it held the job, the last one was %s', g.crashes + 1, owner), g.attempts, nullif(g.options - 'limited', '{}')
            FROM gone g)
        SELECT array_agg(g.id), array_agg(g.task) INTO failed_ids, failed_tasks FROM gone g;
        RETURN QUERY SELECT owner, f.id, f.task, true FROM unnest(failed_ids, failed_tasks) AS f(id, task);
        IF failed_ids IS NOT NULL AND workerd.has_children() THEN
            PERFORM workerd.tell_children(failed_ids, 'failed');
        END IF;
        RETURN QUERY
        UPDATE workerd.ready r SET attempt = r.attempt + 1, crashes = r.crashes + 1, attempts = workerd.with_attempt(r.attempts, r.attempt + 1,
            owner, held.claimed_at, 'crashed', format('node %s died', owner))
        WHERE r.lane = held.lane AND r.pos = ANY (lost) RETURNING owner, r.id, r.task, false;
        PERFORM pg_notify('workerd', format('rewind %s %s', held.lane, lower(held.tickets)));
    END LOOP;
END $$;

-- Also of jobs that wait for others or for their turn.
CREATE OR REPLACE FUNCTION workerd.cancel(a_id bigint, a_ttl double precision) RETURNS text
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET jit = off AS $$
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
            INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, max_retries, enqueued_at, queued_at, task, key, payload, attempts, options)
            SELECT id, workerd.expiry(a_ttl), lane, 'cancelled', attempt, failures, crashes, max_retries, enqueued_at, run_at, task, key, payload, attempts, options FROM gone)
        SELECT count(*) INTO changed FROM gone;
        IF changed = 1 THEN
            PERFORM workerd.tell_children(ARRAY[a_id], 'cancelled');
        END IF;
    ELSE
        PERFORM workerd.lock_lane(spot.lane);
        changed := workerd.drop_cancelled(spot.lane, array(
            SELECT spot.pos WHERE NOT EXISTS (SELECT FROM workerd.lease e WHERE e.lane = spot.lane AND e.last >= spot.pos AND e.tickets @> spot.pos)), a_ttl);
    END IF;
    RETURN CASE WHEN changed = 1 THEN spot.state ELSE 'again' END;
END $$;

-- Queues a failed, cancelled, scheduled or blocked job now, with all its retries. Returns the state it was in, or 'unknown', 'queued', 'running',
-- 'succeeded'. Under a limit it waits for its turn.
CREATE OR REPLACE FUNCTION workerd.retry(a_id bigint) RETURNS text LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    was text;
    ignored text;
BEGIN
    WITH gone AS (
        DELETE FROM workerd.scheduled WHERE id = a_id AND waits IS DISTINCT FROM 'limit' AND (options ? 'batch') IS NOT TRUE RETURNING *)
    SELECT workerd.queue_now(id, lane, attempt, failures, crashes, max_retries, task, key, enqueued_at, payload, attempts, options),
        CASE waits WHEN 'jobs' THEN 'blocked' ELSE 'scheduled' END INTO ignored, was FROM gone;
    IF was IS NULL THEN
        WITH gone AS (DELETE FROM workerd.history WHERE id = a_id AND state IN ('failed', 'cancelled') RETURNING *),
        locked AS (INSERT INTO workerd.key (key, id) SELECT key, id FROM gone WHERE key IS NOT NULL)
        SELECT workerd.queue_now(id, lane, attempt, 0, 0, max_retries, task, key, enqueued_at, payload,
            CASE WHEN started_at IS NULL THEN attempts ELSE workerd.with_attempt(attempts, attempt,
                (SELECT n.name FROM workerd.node n WHERE n.id = node), started_at, state, error, fingerprint, finished_at) END,
            nullif(options - 'deadline', '{}')), state INTO ignored, was
        FROM gone;
    END IF;
    IF was IS NOT NULL THEN
        PERFORM pg_notify('workerd', 'ready');
        RETURN was;
    END IF;
    SELECT q.state INTO was FROM (
        SELECT CASE WHEN EXISTS (SELECT FROM workerd.lease e WHERE e.lane = r.lane AND e.last >= r.pos AND e.tickets @> r.pos) THEN 'running' ELSE 'queued' END AS state
        FROM workerd.ready r WHERE r.id = a_id
        UNION ALL SELECT 'queued' FROM workerd.scheduled s WHERE s.id = a_id
        UNION ALL SELECT h.state FROM workerd.history h WHERE h.id = a_id) q LIMIT 1;
    RETURN coalesce(was, 'unknown');
EXCEPTION WHEN unique_violation THEN
    RETURN 'key taken';
END $$;

-- Queues a job that the caller has removed from where it was.
CREATE FUNCTION workerd.queue_now(
    a_id bigint, a_lane int, a_attempt int, a_failures int, a_crashes int, a_max_retries int, a_task text, a_key text, a_enqueued_at timestamptz,
    a_payload jsonb, a_attempts jsonb, a_options jsonb
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF workerd.is_limited(a_lane, a_task) THEN
        INSERT INTO workerd.scheduled (id, lane, run_at, attempt, failures, crashes, max_retries, task, key, enqueued_at, payload, attempts, options, waits, line)
        VALUES (a_id, a_lane, now(), a_attempt, a_failures, a_crashes, a_max_retries, a_task, a_key, a_enqueued_at, a_payload, a_attempts, a_options,
            'limit', workerd.line_of(a_task, a_payload));
        PERFORM workerd.wake_leader();
    ELSE
        INSERT INTO workerd.ready (id, lane, attempt, failures, crashes, max_retries, task, key, enqueued_at, payload, attempts, options)
        VALUES (a_id, a_lane, a_attempt, a_failures, a_crashes, a_max_retries, a_task, a_key, a_enqueued_at, a_payload, a_attempts, a_options);
    END IF;
END $$;

-- Queues what is due. Returns how many left their place, and the seconds until the next one is due (NULL: none waits).
CREATE OR REPLACE FUNCTION workerd.stage(a_rows int, OUT staged int, OUT next_in double precision) LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET jit = off AS $$
DECLARE
    moment timestamptz := clock_timestamp();  -- a value, which the index can be asked for
    due bigint[] := ARRAY(
        SELECT s.id FROM workerd.scheduled s WHERE s.waits IS NULL AND s.run_at <= moment ORDER BY s.run_at LIMIT a_rows FOR UPDATE SKIP LOCKED);
    lanes int[];
BEGIN
    staged := cardinality(due);
    IF staged > 0 AND (EXISTS (SELECT FROM workerd.lane l WHERE l.limited) OR EXISTS (SELECT FROM workerd.task t WHERE t.limited)) THEN
        WITH held AS (
            UPDATE workerd.scheduled s SET waits = 'limit', line = workerd.line_of(s.task, s.payload)
            WHERE s.id = ANY (due) AND workerd.is_limited(s.lane, s.task) RETURNING s.id)
        SELECT coalesce(array_agg(d), '{}') INTO due FROM unnest(due) d WHERE NOT EXISTS (SELECT FROM held h WHERE h.id = d);
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
    SELECT extract(epoch FROM min(s.run_at) - clock_timestamp()) INTO next_in FROM workerd.scheduled s WHERE s.waits IS NULL;
END $$;

-- Decides about jobs that wait for others, of which up to a_rows are looked at: those whose parents ended as asked become due, those whose
-- parents cannot any more are cancelled, and a batch whose jobs have all ended succeeds. Returns how many were looked at.
CREATE FUNCTION workerd.settle(a_rows int, a_node bigint, a_ttl double precision) RETURNS int
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
    PERFORM workerd.decide(heard, a_node, a_ttl);
    RETURN cardinality(fresh) + cardinality(heard);
END $$;

CREATE FUNCTION workerd.decide(a_children bigint[], a_node bigint, a_ttl double precision) RETURNS void
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

-- The tokens of a limit with a rate, as many as there are now; half a second of them can be saved up.
CREATE FUNCTION workerd.tokens(a_scope text, a_name text, a_line text, a_rate double precision) RETURNS double precision
LANGUAGE sql VOLATILE AS $$
    SELECT coalesce((
        SELECT least(greatest(1, a_rate * 0.5), b.tokens + greatest(0, extract(epoch FROM clock_timestamp() - b.at)) * a_rate)
        FROM workerd.bucket b WHERE b.scope = a_scope AND b.name = a_name AND b.line = a_line), 1)
$$;

CREATE FUNCTION workerd.take_tokens(a_scope text, a_name text, a_line text, a_rate double precision, a_count int) RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO workerd.bucket AS b (scope, name, line, tokens, at)
    VALUES (a_scope, a_name, a_line, workerd.tokens(a_scope, a_name, a_line, a_rate) - a_count, clock_timestamp())
    ON CONFLICT (scope, name, line) DO UPDATE SET tokens = excluded.tokens, at = excluded.at
$$;

-- Lets jobs whose turn it is into the ready table, as many as their limits allow. Called by the leader alone, one call at a time.
-- a_ahead: how many limited jobs of a task may be queued at a time: few, so that the next ones of another line do not wait behind them.
-- Returns how many were let in, how many had been let in and have not started, and the seconds until a limit with a rate allows the next one
-- (NULL: none waits for that).
CREATE FUNCTION workerd.admit(a_rows int, a_ahead int, OUT admitted int, OUT queued int, OUT next_in double precision)
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    pool record;
    room int;
    ahead int;
    tokens double precision;
    taken int;
BEGIN
    admitted := 0;
    queued := 0;
    DELETE FROM workerd.slot s WHERE NOT EXISTS (SELECT FROM workerd.ready r WHERE r.id = s.id);
    FOR pool IN
        WITH RECURSIVE pools(task, lane) AS (
            (SELECT s.task, s.lane FROM workerd.scheduled s WHERE s.waits = 'limit' ORDER BY s.task, s.lane LIMIT 1)
            UNION ALL
            SELECT n.task, n.lane FROM pools p, LATERAL (
                SELECT s.task, s.lane FROM workerd.scheduled s WHERE s.waits = 'limit' AND (s.task, s.lane) > (p.task, p.lane) ORDER BY s.task, s.lane LIMIT 1) n)
        SELECT p.task, p.lane, l.queue, q.rate AS queue_rate, q.concurrency AS queue_concurrency, t.rate AS task_rate, t.concurrency AS task_concurrency,
            k.rate AS key_rate, k.concurrency AS key_concurrency
        FROM pools p JOIN workerd.lane l ON l.id = p.lane JOIN workerd.queue o ON o.name = l.queue AND o.paused_at IS NULL
        LEFT JOIN workerd.limit_in_force q ON q.scope = 'queue' AND q.name = l.queue
        LEFT JOIN workerd.limit_in_force t ON t.scope = 'task' AND t.name = p.task
        LEFT JOIN workerd.limit_in_force k ON k.scope = 'key' AND k.name = p.task
        ORDER BY l.priority DESC, random()
    LOOP
        SELECT count(*) INTO ahead FROM workerd.slot s JOIN workerd.ready r ON r.id = s.id
        WHERE s.task = pool.task
            AND NOT EXISTS (SELECT FROM workerd.lease e WHERE e.lane = r.lane AND e.last >= r.pos AND e.tickets @> r.pos);
        queued := queued + ahead;
        room := least(a_rows - admitted, a_ahead - ahead,
            pool.queue_concurrency - (SELECT count(*) FROM workerd.slot s WHERE s.queue = pool.queue AND pool.queue_concurrency IS NOT NULL),
            pool.task_concurrency - (SELECT count(*) FROM workerd.slot s WHERE s.task = pool.task AND pool.task_concurrency IS NOT NULL));
        CONTINUE WHEN room <= 0;
        IF pool.queue_rate IS NOT NULL THEN
            tokens := workerd.tokens('queue', pool.queue, '', pool.queue_rate);
            room := least(room, floor(tokens));
            next_in := least(next_in, (1 - tokens + floor(tokens)) / pool.queue_rate);
        END IF;
        IF pool.task_rate IS NOT NULL THEN
            tokens := workerd.tokens('task', pool.task, '', pool.task_rate);
            room := least(room, floor(tokens));
            next_in := least(next_in, (1 - tokens + floor(tokens)) / pool.task_rate);
        END IF;
        CONTINUE WHEN room <= 0;
        IF pool.key_rate IS NOT NULL THEN
            next_in := least(next_in, greatest(0.02, 1 / pool.key_rate / 4));
        END IF;
        taken := workerd.admit_pool(pool.task, pool.lane, pool.queue, room, pool.key_rate, pool.key_concurrency);
        admitted := admitted + taken;
        queued := queued + taken;
        IF pool.queue_rate IS NOT NULL AND taken > 0 THEN
            PERFORM workerd.take_tokens('queue', pool.queue, '', pool.queue_rate, taken);
        END IF;
        IF pool.task_rate IS NOT NULL AND taken > 0 THEN
            PERFORM workerd.take_tokens('task', pool.task, '', pool.task_rate, taken);
        END IF;
        IF taken > 0 THEN
            PERFORM workerd.wake(pool.lane);
        END IF;
    END LOOP;
END $$;

-- Lets up to a_room jobs of one task in one lane in, line by line in turn, going on after the line that was served last.
CREATE FUNCTION workerd.admit_pool(
    a_task text, a_lane int, a_queue text, a_room int, a_key_rate double precision, a_key_concurrency int
) RETURNS int LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    since text := coalesce((SELECT t.line FROM workerd.turn t WHERE t.lane = a_lane AND t.task = a_task), '');
    lines text[];
    rooms int[];
    let bigint[];
    let_lines text[];
    taken int;
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
    WITH gone AS (DELETE FROM workerd.scheduled s WHERE s.id = ANY (let) RETURNING *),
    put AS (
        INSERT INTO workerd.ready (lane, id, attempt, failures, crashes, max_retries, task, key, enqueued_at, queued_at, payload, attempts, options)
        SELECT g.lane, g.id, g.attempt, g.failures, g.crashes, g.max_retries, g.task, g.key, g.enqueued_at, g.run_at, g.payload, g.attempts,
            coalesce(g.options, '{}') || '{"limited": true}'
        FROM gone g JOIN unnest(let) WITH ORDINALITY AS o(id, place) ON o.id = g.id ORDER BY o.place),
    held AS (INSERT INTO workerd.slot (id, task, queue, line) SELECT g.id, a_task, a_queue, g.line FROM gone g)
    SELECT count(*) INTO taken FROM gone;
    IF a_key_rate IS NOT NULL THEN
        PERFORM workerd.take_tokens('key', a_task, c.line, a_key_rate, c.n::int) FROM (SELECT l AS line, count(*) AS n FROM unnest(let_lines) l GROUP BY l) c;
    END IF;
    INSERT INTO workerd.turn (lane, task, line) VALUES (a_lane, a_task, let_lines[cardinality(let_lines)])
    ON CONFLICT (lane, task) DO UPDATE SET line = excluded.line;
    RETURN taken;
END $$;

-- Says which tasks and lanes are limited, after limits have changed. What waits in a line that there is no more is let in by admission.
CREATE FUNCTION workerd.mark_limited() RETURNS void LANGUAGE sql VOLATILE AS $$
    UPDATE workerd.task t SET limited = NOT t.limited WHERE t.limited IS DISTINCT FROM (t.limit_key IS NOT NULL OR EXISTS (
        SELECT FROM workerd.limit_in_force f WHERE f.scope IN ('task', 'key') AND f.name = t.name AND (f.rate IS NOT NULL OR f.concurrency IS NOT NULL)));
    UPDATE workerd.lane l SET limited = NOT l.limited WHERE l.limited IS DISTINCT FROM EXISTS (
        SELECT FROM workerd.limit_in_force f WHERE f.scope = 'queue' AND f.name = l.queue AND (f.rate IS NOT NULL OR f.concurrency IS NOT NULL));
    SELECT workerd.wake_leader();
$$;

-- Sends queued jobs that came before their limit into their lines: of one lane, among a_rows tickets behind a_since. Returns the last ticket
-- that was looked at; NULL: there are no more.
CREATE FUNCTION workerd.hold_back(a_lane int, a_since bigint, a_rows int) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    taken int8multirange;
    until bigint;
BEGIN
    SELECT max(w.pos) INTO until FROM (SELECT r.pos FROM workerd.ready r WHERE r.lane = a_lane AND r.pos > a_since ORDER BY r.pos LIMIT a_rows) w;
    IF until IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM workerd.lock_lane(a_lane);
    SELECT coalesce(range_agg(l.tickets), '{}') INTO taken FROM workerd.lease l WHERE l.lane = a_lane;
    WITH gone AS (
        DELETE FROM workerd.ready r WHERE r.lane = a_lane AND r.pos > a_since AND r.pos <= until AND NOT r.pos <@ taken
            AND (r.options ? 'limited') IS NOT TRUE AND workerd.is_limited(a_lane, r.task) RETURNING r.*)
    INSERT INTO workerd.scheduled (id, lane, run_at, attempt, failures, crashes, max_retries, task, key, enqueued_at, payload, attempts, options, waits, line)
    SELECT id, lane, queued_at, attempt, failures, crashes, max_retries, task, key, enqueued_at, payload, attempts, options, 'limit',
        workerd.line_of(task, payload)
    FROM gone;
    RETURN until;
END $$;

-- Moves queued jobs of one lane to another one, of its first a_rows: with a_ageing (seconds for each step of priority) those that waited long
-- enough to have risen to the other lane's priority, otherwise those that are there since a_before and would rather be elsewhere.
-- Under the lock of the first lane; what is on lease stays. Returns how many.
CREATE FUNCTION workerd.move_queued(a_from int, a_to int, a_before timestamptz, a_ageing double precision, a_rows int) RETURNS int
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    low int := (SELECT l.priority FROM workerd.lane l WHERE l.id = a_from);
    high int := (SELECT l.priority FROM workerd.lane l WHERE l.id = a_to);
    taken int8multirange;
    moved int;
BEGIN
    PERFORM workerd.lock_lane(a_from);
    SELECT coalesce(range_agg(l.tickets), '{}') INTO taken FROM workerd.lease l WHERE l.lane = a_from;
    WITH early AS MATERIALIZED (
        SELECT w.pos FROM (SELECT r.pos, r.queued_at, r.options FROM workerd.ready r WHERE r.lane = a_from ORDER BY r.pos LIMIT a_rows) w
        WHERE NOT w.pos <@ taken AND CASE WHEN a_ageing IS NULL THEN w.options ? 'prefer' AND w.queued_at <= a_before
            ELSE w.queued_at <= a_before - make_interval(secs => a_ageing * (high - coalesce((w.options ->> 'aged')::int, low))) END),
    gone AS (DELETE FROM workerd.ready r USING early WHERE r.lane = a_from AND r.pos = early.pos RETURNING r.*),
    put AS (
        INSERT INTO workerd.ready (lane, id, attempt, failures, crashes, max_retries, task, key, enqueued_at, queued_at, payload, attempts, options)
        SELECT a_to, id, attempt, failures, crashes, max_retries, task, key, enqueued_at, queued_at, payload, attempts,
            CASE WHEN a_ageing IS NULL THEN nullif(options - 'prefer', '{}') ELSE jsonb_build_object('aged', low) || coalesce(options, '{}') END
        FROM gone ORDER BY pos)
    SELECT count(*) INTO moved FROM gone;
    IF moved > 0 THEN
        PERFORM workerd.wake(a_to);
    END IF;
    RETURN moved;
END $$;

-- Every job, wherever it is; the running attempt counts as begun. The fingerprint is that of the failure that came last.
CREATE OR REPLACE VIEW workerd.job AS
SELECT r.id, r.task, l.queue, CASE WHEN e.node IS NULL THEN 'queued' ELSE 'running' END AS state, l.priority::int AS priority, r.payload,
    NULL::jsonb AS result, NULL::text AS error, r.attempt + (e.node IS NOT NULL)::int AS attempt, r.failures,
    coalesce(r.max_retries, t.max_retries)::int AS max_retries, p.fraction AS progress, p.message, r.key, r.enqueued_at, r.queued_at AS run_at,
    e.claimed_at AS started_at, NULL::timestamptz AS finished_at, n.name AS node, r.attempts,
    r.attempts -> -1 ->> 'fingerprint' AS fingerprint, r.options, l.node AS pinned
FROM workerd.ready r JOIN workerd.lane l ON l.id = r.lane LEFT JOIN workerd.task t ON t.name = r.task
LEFT JOIN workerd.lease e ON e.lane = r.lane AND e.last >= r.pos AND e.tickets @> r.pos
LEFT JOIN workerd.node n ON n.id = e.node LEFT JOIN workerd.progress p ON p.id = r.id
UNION ALL
SELECT s.id, s.task, l.queue, CASE s.waits WHEN 'jobs' THEN 'blocked' WHEN 'limit' THEN 'queued' ELSE 'scheduled' END, l.priority, s.payload, NULL,
    s.attempts -> -1 ->> 'error', s.attempt, s.failures, coalesce(s.max_retries, t.max_retries),
    CASE WHEN s.options ? 'batch' THEN (SELECT (count(d.ended)::float8 / greatest(count(*), 1))::real FROM workerd.dependency d WHERE d.child = s.id) END,
    NULL, s.key, s.enqueued_at, s.run_at, NULL, NULL, NULL, s.attempts,
    s.attempts -> -1 ->> 'fingerprint', s.options, l.node
FROM workerd.scheduled s JOIN workerd.lane l ON l.id = s.lane LEFT JOIN workerd.task t ON t.name = s.task
UNION ALL
SELECT h.id, h.task, l.queue, h.state, l.priority, h.payload, h.result, h.error, h.attempt, h.failures,
    coalesce(h.max_retries, t.max_retries), h.progress, NULL, h.key, h.enqueued_at, h.queued_at, h.started_at, h.finished_at, n.name, h.attempts,
    CASE WHEN h.state = 'failed' THEN coalesce(h.fingerprint, 'other') END, h.options, l.node
FROM workerd.history h JOIN workerd.lane l ON l.id = h.lane LEFT JOIN workerd.task t ON t.name = h.task LEFT JOIN workerd.node n ON n.id = h.node;

-- part outside of a transaction: scheduled: the index of before, which the functions of before used
DROP INDEX CONCURRENTLY IF EXISTS workerd.scheduled_run_at;
