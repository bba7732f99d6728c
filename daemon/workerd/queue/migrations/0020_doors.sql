-- What cannot be stored, staged or run is refused where it comes in, with one line. The functions that put jobs into the queue act as the
-- owner of the schema: who may call them needs no rights on the tables. They trust no name of the caller's search_path.

-- part: functions
-- Raises where a transaction sees the queue as it was: the row of a job that was claimed since would be taken for one that waits.
CREATE FUNCTION workerd.need_read_committed(a_action text) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        RAISE EXCEPTION '% needs READ COMMITTED, this transaction is %: use one of its own, or BEGIN ISOLATION LEVEL READ COMMITTED', a_action,
            upper(current_setting('transaction_isolation')) USING ERRCODE = 'invalid_transaction_state';
    END IF;
END $$;

-- Raises for a time that is none, or that the programs that read it cannot hold in every time zone.
CREATE FUNCTION workerd.need_time(a_what text, a_time timestamptz) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF a_time < '0001-01-02 00:00:00Z' OR a_time >= '9999-01-01 00:00:00Z' THEN
        RAISE EXCEPTION '% is %, allowed are times between the years 1 and 9999', a_what, a_time USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;

-- A time as lists show it; what ISO 8601 has no digits for as PostgreSQL writes it.
CREATE FUNCTION workerd.shown(a_time timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN a_time >= '0001-01-01 00:00:00Z' AND a_time < '10000-01-01 00:00:00Z'
        THEN to_char(a_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"+00:00"') ELSE a_time::text END
$$;

-- Seconds since a time; NULL where it is none.
CREATE FUNCTION workerd.seconds_since(a_time timestamptz) RETURNS double precision LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT CASE WHEN isfinite(a_time) THEN extract(epoch FROM clock_timestamp() - a_time)::double precision END
$$;

-- A number in a JSON text that no program reads as it is: an integer of more than 64 bits, or what a double does not hold. NULL: none.
CREATE FUNCTION workerd.lost_number(a_text text) RETURNS text LANGUAGE sql STABLE SET extra_float_digits = 1 AS $$
    SELECT m[1] FROM regexp_matches(regexp_replace(a_text, '"(?:[^"\\]|\\.)*"', '', 'g'), '-?[0-9.]{19,}', 'g') m
    WHERE CASE WHEN length(m[1]) < 300 AND length(trim('-0' FROM replace(m[1], '.', ''))) <= 17 THEN false
        WHEN strpos(m[1], '.') = 0 AND m[1]::numeric BETWEEN -9223372036854775808 AND 18446744073709551615 THEN false
        WHEN abs(m[1]::numeric) > 1.7976931348623157e308 OR abs(m[1]::numeric) BETWEEN 1e-1000 AND 4.9e-324 THEN true
        ELSE m[1]::float8::text::numeric <> m[1]::numeric END LIMIT 1
$$;

-- What is wrong with a JSON value, as the rest of a sentence; NULL: nothing. Each level takes 8 bytes, so that small values are not looked through.
CREATE FUNCTION workerd.json_fault(a_value jsonb, a_levels int DEFAULT 200) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    written text := a_value::text;
    size int := octet_length(written);
    bare text;
BEGIN
    IF size > 1000000 THEN  -- the spaces between its parts are the server's own
        bare := regexp_replace(written, '"(?:[^"\\]|\\.)*"', '', 'g');
        size := size - (length(bare) - length(replace(bare, ' ', '')));
        IF size > 1000000 THEN
            RETURN format('has %s bytes, the limit is 1,000,000: store the data elsewhere and pass a reference', to_char(size, 'FM999,999,999,999'));
        END IF;
    END IF;
    IF pg_column_size(a_value) > 8 * a_levels AND a_value @? format('strict $.**{%s}', a_levels + 1)::jsonpath THEN
        RETURN format('is nested more than %s levels deep: store the data elsewhere and pass a reference', a_levels);
    END IF;
    IF written ~ '[0-9.]{19}' THEN
        RETURN 'has the number ' || left(workerd.lost_number(written), 40)
            || ', which is read with less digits (allowed are integers of 64 bits and up to 17 digits): pass it as text';
    END IF;
    RETURN NULL;
END $$;

-- Raises for arguments of an enqueue that cannot be stored or found again; NULL stands for what is not given.
CREATE FUNCTION workerd.need_options(a_task text, a_queue text, a_priority int, a_max_retries int, a_key text, a_node text)
RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    wrong text := CASE
        WHEN a_task IS NULL OR a_task = '' THEN 'the name of a task is empty'
        WHEN concat(a_task, a_queue, a_node) ~ '[[:cntrl:]]' THEN 'names have no control characters'
        WHEN length(a_task) > 200 THEN format('task has %s characters, allowed are 200', length(a_task))
        WHEN a_queue = '' THEN 'the name of a queue is empty'
        WHEN length(a_queue) > 200 THEN format('queue has %s characters, allowed are 200', length(a_queue))
        WHEN a_priority NOT BETWEEN -32768 AND 32767 THEN format('priority %s is not between -32768 and 32767', a_priority)
        WHEN a_max_retries NOT BETWEEN 0 AND 32767 THEN format('max_retries is %s, allowed is 0 to 32767', a_max_retries)
        WHEN a_key = '' THEN 'key is empty: leave it out, or name what the job is about'
        WHEN octet_length(a_key) > 1000 THEN format('key has %s bytes, allowed are 1,000', octet_length(a_key))
        WHEN a_node = '' THEN 'pin and prefer take the name of a node'
        WHEN length(a_node) > 200 THEN format('the name of a node has %s characters, allowed are 200', length(a_node)) END;
BEGIN
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;

-- Raises for a payload that its task cannot get. The line of its limit is part of an index.
CREATE FUNCTION workerd.need_payload(a_task text, a_payload jsonb) RETURNS void LANGUAGE plpgsql STABLE AS $$
DECLARE
    fault text := CASE WHEN jsonb_typeof(a_payload) IS DISTINCT FROM 'object' THEN 'is not a JSON object of its arguments'
        ELSE workerd.json_fault(a_payload) END;
BEGIN
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'the payload of % %', a_task, fault USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;

CREATE FUNCTION workerd.need_line(a_task text, a_payload jsonb) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF octet_length(workerd.line_of(a_task, a_payload)) > 1000 THEN
        RAISE EXCEPTION 'the argument of % by which its limit counts has % bytes, allowed are 1,000', a_task,
            octet_length(workerd.line_of(a_task, a_payload)) USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;

-- As before, in a transaction that sees what is claimed meanwhile, and with values that can be.
CREATE OR REPLACE FUNCTION workerd.change(
    a_id bigint, a_payload jsonb DEFAULT NULL, a_lane int DEFAULT NULL, a_run_at timestamptz DEFAULT NULL, a_max_retries int DEFAULT NULL
) RETURNS text LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    spot record;
    was text;
    changed int;
    to_lane int;
    of_task text := CASE WHEN a_payload IS NOT NULL THEN (
        SELECT r.task FROM workerd.ready r WHERE r.id = a_id UNION ALL SELECT s.task FROM workerd.scheduled s WHERE s.id = a_id LIMIT 1) END;
BEGIN
    PERFORM workerd.need_read_committed('a change of a job');
    PERFORM workerd.need_time('run_at', a_run_at);
    PERFORM workerd.need_options('-', NULL, NULL, a_max_retries, NULL, NULL);
    IF a_payload IS NOT NULL THEN
        PERFORM workerd.need_payload(coalesce(of_task, format('job %s', a_id)), a_payload);
        PERFORM workerd.need_line(of_task, a_payload);
    END IF;
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

CREATE OR REPLACE FUNCTION workerd.cancel(a_id bigint, a_ttl double precision) RETURNS text
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    spot record;
    changed int;
BEGIN
    PERFORM workerd.need_read_committed('a cancellation');
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

CREATE OR REPLACE FUNCTION workerd.hold_back(a_lane int, a_since bigint, a_rows int) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    taken int8multirange;
    until bigint;
    early bigint[];
BEGIN
    PERFORM workerd.need_read_committed('to hold jobs back');
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

CREATE OR REPLACE FUNCTION workerd.move_queued(a_from int, a_to int, a_before timestamptz, a_ageing double precision, a_rows int) RETURNS int
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    taken int8multirange;
    first bigint[];
    moved int;
BEGIN
    PERFORM workerd.need_read_committed('a move of jobs');
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

-- As before, with names that can be.
CREATE OR REPLACE FUNCTION workerd.lane_of(a_queue text, a_priority int, a_node text DEFAULT NULL) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    found_id int;
BEGIN
    SELECT l.id INTO found_id FROM workerd.lane l WHERE l.queue = a_queue AND l.priority = a_priority AND l.node IS NOT DISTINCT FROM a_node;
    IF found_id IS NOT NULL THEN
        RETURN found_id;
    END IF;
    PERFORM workerd.need_options('-', a_queue, a_priority, NULL, NULL, a_node);
    INSERT INTO workerd.queue (name) VALUES (a_queue) ON CONFLICT DO NOTHING;
    INSERT INTO workerd.lane (queue, priority, node, limited)
    VALUES (a_queue, a_priority, a_node, EXISTS (SELECT FROM workerd.limit_in_force f WHERE f.scope = 'queue' AND f.name = a_queue
        AND (f.rate IS NOT NULL OR f.concurrency IS NOT NULL))) ON CONFLICT DO NOTHING;
    PERFORM pg_notify('workerd', 'lanes');
    SELECT l.id INTO STRICT found_id FROM workerd.lane l
    WHERE l.queue = a_queue AND l.priority = a_priority AND l.node IS NOT DISTINCT FROM a_node;
    RETURN found_id;
END $$;

-- As before, by the rights of the owner. Another job is changed (`conflict`) for those alone who may change jobs.
CREATE OR REPLACE FUNCTION workerd.enqueue(
    task text, payload jsonb DEFAULT '{}', queue text DEFAULT NULL, priority int DEFAULT NULL, run_at timestamptz DEFAULT NULL,
    key text DEFAULT NULL, max_retries int DEFAULT NULL, delay interval DEFAULT NULL,
    after bigint[] DEFAULT NULL, after_need text DEFAULT 'all', after_end text DEFAULT 'succeeded',
    conflict text DEFAULT 'keep', key_until text DEFAULT 'finished', deadline timestamptz DEFAULT NULL,
    pin text DEFAULT NULL, prefer text DEFAULT NULL, batch boolean DEFAULT false,
    traceparent text DEFAULT NULL, tracestate text DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    to_lane int;
    due timestamptz := coalesce(enqueue.run_at, now() + enqueue.delay);
    new_id bigint;
    holder bigint;
    state text;
    asked jsonb;
    woken boolean;
    caller name;
BEGIN
    IF jsonb_typeof(enqueue.payload) IS DISTINCT FROM 'object' OR pg_column_size(enqueue.payload) > 1600 OR enqueue.payload::text ~ '[0-9.]{19}' THEN
        PERFORM workerd.need_payload(enqueue.task, enqueue.payload);
    END IF;
    IF (length(enqueue.task) BETWEEN 1 AND 200 AND enqueue.task !~ '[[:cntrl:]]') IS NOT TRUE OR coalesce(enqueue.queue, enqueue.key, enqueue.pin, enqueue.prefer) IS NOT NULL
        OR coalesce(enqueue.priority, enqueue.max_retries) IS NOT NULL THEN
        PERFORM workerd.need_options(enqueue.task, enqueue.queue, enqueue.priority, enqueue.max_retries, enqueue.key, coalesce(enqueue.pin, enqueue.prefer));
    END IF;
    IF enqueue.key IS NULL AND due IS NULL AND enqueue.after IS NULL AND enqueue.deadline IS NULL AND enqueue.pin IS NULL
        AND enqueue.prefer IS NULL AND NOT enqueue.batch THEN  -- most calls: one statement, unless the lane has to be made or there is a limit
        INSERT INTO workerd.ready (lane, id, max_retries, task, payload, options)
        SELECT l.id, nextval('workerd.job_id'), enqueue.max_retries, enqueue.task, enqueue.payload,
            CASE WHEN enqueue.traceparent IS NOT NULL THEN
                jsonb_build_object('trace', workerd.trace_of(enqueue.traceparent, enqueue.tracestate)) END
        FROM (VALUES (enqueue.task)) AS call(task) LEFT JOIN workerd.task t ON t.name = call.task
        JOIN workerd.lane l ON l.queue = coalesce(enqueue.queue, t.queue, 'default') AND l.priority = coalesce(enqueue.priority, t.priority, 0)
            AND l.node IS NULL
        WHERE NOT l.limited AND t.limited IS NOT TRUE
        RETURNING id, workerd.wake(lane) INTO new_id, woken;
        IF FOUND THEN
            RETURN new_id;
        END IF;
    END IF;
    PERFORM workerd.need_time('run_at', due);
    PERFORM workerd.need_time('deadline', enqueue.deadline);
    IF enqueue.conflict NOT IN ('keep', 'replace', 'reschedule') OR enqueue.key_until NOT IN ('finished', 'started')
        OR enqueue.after_need NOT IN ('all', 'any') OR enqueue.after_end NOT IN ('succeeded', 'finished') THEN
        RAISE EXCEPTION 'conflict is keep, replace or reschedule; key_until finished or started; after_need all or any; after_end succeeded or finished'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue.conflict <> 'keep' THEN
        PERFORM workerd.need_read_committed(format('conflict %s', enqueue.conflict));
        caller := coalesce(nullif(current_setting('role'), 'none'), session_user);
        IF NOT has_table_privilege(caller, 'workerd.ready', 'DELETE') THEN
            RAISE EXCEPTION 'the role % may not change jobs: conflict has to be keep', caller USING ERRCODE = 'insufficient_privilege';
        END IF;
    END IF;
    PERFORM workerd.need_line(enqueue.task, enqueue.payload);
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
        'batch', nullif(enqueue.batch, false), 'trace', workerd.trace_of(enqueue.traceparent, enqueue.tracestate),
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

CREATE OR REPLACE FUNCTION workerd.enqueue_many(
    task text, payloads text[], queue text DEFAULT NULL, priority int DEFAULT NULL, run_at timestamptz DEFAULT NULL,
    max_retries int DEFAULT NULL, delay interval DEFAULT NULL,
    after bigint[] DEFAULT NULL, after_need text DEFAULT 'all', after_end text DEFAULT 'succeeded', deadline timestamptz DEFAULT NULL,
    pin text DEFAULT NULL, prefer text DEFAULT NULL, traceparent text DEFAULT NULL, tracestate text DEFAULT NULL
) RETURNS SETOF bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    to_lane int;
    due timestamptz := coalesce(enqueue_many.run_at, now() + enqueue_many.delay);
    limited boolean;
    asked jsonb;
    new_ids bigint[];
BEGIN
    PERFORM workerd.need_options(enqueue_many.task, enqueue_many.queue, enqueue_many.priority, enqueue_many.max_retries, NULL,
        coalesce(enqueue_many.pin, enqueue_many.prefer));
    PERFORM workerd.need_time('run_at', due);
    PERFORM workerd.need_time('deadline', enqueue_many.deadline);
    -- what is short, an object and without long numbers needs no second look
    PERFORM workerd.need_payload(enqueue_many.task, p::jsonb) FROM unnest(enqueue_many.payloads) p
    WHERE (octet_length(p) <= 800 AND left(p, 1) = '{' AND p !~ '[0-9.]{19}|[0-9][eE]') IS NOT TRUE;
    IF due IS NOT NULL OR enqueue_many.after IS NOT NULL OR EXISTS (SELECT FROM workerd.task t WHERE t.name = enqueue_many.task AND t.limited) THEN
        PERFORM workerd.need_line(enqueue_many.task, p::jsonb) FROM unnest(enqueue_many.payloads) p WHERE octet_length(p) > 1000;
    END IF;
    to_lane := workerd.lane_for(enqueue_many.task, enqueue_many.queue, enqueue_many.priority, coalesce(enqueue_many.pin, enqueue_many.prefer));
    limited := workerd.is_limited(to_lane, enqueue_many.task);
    IF enqueue_many.after_need NOT IN ('all', 'any') OR enqueue_many.after_end NOT IN ('succeeded', 'finished') THEN
        RAISE EXCEPTION 'after_need is all or any; after_end succeeded or finished' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    asked := nullif(jsonb_strip_nulls(jsonb_build_object('deadline', extract(epoch FROM enqueue_many.deadline),
        'prefer', CASE WHEN enqueue_many.pin IS NULL THEN enqueue_many.prefer END,
        'trace', workerd.trace_of(enqueue_many.traceparent, enqueue_many.tracestate),
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

-- As before, for those who may write into the tables; the rows of others are placed by enqueue_many.
CREATE OR REPLACE FUNCTION workerd.reserve(
    a_jobs int, a_task text, a_queue text, a_priority int, a_run_at timestamptz, a_delay interval,
    OUT lane int, OUT due timestamptz, OUT ids bigint[], OUT limited boolean
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    limited := NOT has_table_privilege('workerd.ready', 'INSERT');
    IF limited THEN
        RETURN;
    END IF;
    PERFORM workerd.need_options(a_task, a_queue, a_priority, NULL, NULL, NULL);
    PERFORM workerd.need_time('run_at', coalesce(a_run_at, now() + a_delay));
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

-- As before, by the rights of the owner.
CREATE OR REPLACE FUNCTION workerd.signal(id bigint, event text, payload jsonb DEFAULT 'null') RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF NOT EXISTS (SELECT FROM workerd.ready r WHERE r.id = signal.id) AND NOT EXISTS (SELECT FROM workerd.scheduled s WHERE s.id = signal.id) THEN
        RAISE EXCEPTION 'job % is finished or does not exist: it takes no signal', signal.id USING ERRCODE = 'no_data_found';
    END IF;
    IF coalesce(length(signal.event), 0) NOT BETWEEN 1 AND 200 THEN
        RAISE EXCEPTION 'the name of an event has % characters, allowed are 1 to 200', coalesce(length(signal.event), 0)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF workerd.json_fault(signal.payload) IS NOT NULL THEN
        RAISE EXCEPTION 'the payload of % %', signal.event, workerd.json_fault(signal.payload) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO workerd.signal (id, event, payload) VALUES (signal.id, signal.event, coalesce(signal.payload, 'null')) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM workerd.wake_leader();
    RETURN true;
END $$;

-- As before; what an enqueue refuses is left out of the notice, or the notice is not sent.
CREATE OR REPLACE FUNCTION workerd.notice(a_ids bigint[], a_days date[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
DECLARE
    failed record;
BEGIN
    FOR failed IN
        SELECT h.*, t.on_failure FROM workerd.history h JOIN workerd.task t ON t.name = h.task
        WHERE h.id = ANY (a_ids) AND h.expires_on = ANY (a_days) AND h.state = 'failed' AND t.on_failure IS NOT NULL
    LOOP
        BEGIN
            PERFORM workerd.enqueue(failed.on_failure, jsonb_build_object('job_id', failed.id, 'task', failed.task, 'attempt', failed.attempt,
                'error', left(failed.error, 16000),
                'payload', CASE WHEN octet_length(failed.payload::text) <= 800000 AND workerd.json_fault(failed.payload, 199) IS NULL
                    THEN failed.payload END),
                traceparent => failed.options #>> '{trace,traceparent}', tracestate => failed.options #>> '{trace,tracestate}');
        EXCEPTION WHEN data_exception THEN
            RAISE WARNING 'the failure of job % is not told to %: %', failed.id, failed.on_failure, SQLERRM;
        END;
    END LOOP;
END $$;

-- Who may use the schema may not thereby enqueue.
REVOKE EXECUTE ON FUNCTION workerd.enqueue, workerd.enqueue_many, workerd.signal FROM PUBLIC;
