-- A job may be part of a trace: its options carry the context of whoever enqueued it, as W3C Trace Context writes it.

-- part: functions
-- What the options of a job say of its trace; NULL for what is no traceparent, which W3C has ignored. A tracestate that is too long goes.
CREATE FUNCTION workerd.trace_of(a_traceparent text, a_tracestate text) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN a_traceparent ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$' THEN jsonb_strip_nulls(jsonb_build_object(
        'traceparent', a_traceparent, 'tracestate', CASE WHEN length(a_tracestate) BETWEEN 1 AND 512 THEN a_tracestate END)) END
$$;

-- As before. traceparent, tracestate: the trace that the job is part of.
DROP FUNCTION workerd.enqueue;
CREATE FUNCTION workerd.enqueue(
    task text, payload jsonb DEFAULT '{}', queue text DEFAULT NULL, priority int DEFAULT NULL, run_at timestamptz DEFAULT NULL,
    key text DEFAULT NULL, max_retries int DEFAULT NULL, delay interval DEFAULT NULL,
    after bigint[] DEFAULT NULL, after_need text DEFAULT 'all', after_end text DEFAULT 'succeeded',
    conflict text DEFAULT 'keep', key_until text DEFAULT 'finished', deadline timestamptz DEFAULT NULL,
    pin text DEFAULT NULL, prefer text DEFAULT NULL, batch boolean DEFAULT false,
    traceparent text DEFAULT NULL, tracestate text DEFAULT NULL
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

DROP FUNCTION workerd.enqueue_many;
CREATE FUNCTION workerd.enqueue_many(
    task text, payloads text[], queue text DEFAULT NULL, priority int DEFAULT NULL, run_at timestamptz DEFAULT NULL,
    max_retries int DEFAULT NULL, delay interval DEFAULT NULL,
    after bigint[] DEFAULT NULL, after_need text DEFAULT 'all', after_end text DEFAULT 'succeeded', deadline timestamptz DEFAULT NULL,
    pin text DEFAULT NULL, prefer text DEFAULT NULL, traceparent text DEFAULT NULL, tracestate text DEFAULT NULL
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

-- Enqueues the notices of jobs that this transaction has written to history as failed, to be kept until one of these days. It raises nothing
-- that the failures would be rolled back for: what would make a notice too large is left out. A notice is part of its job's trace.
CREATE OR REPLACE FUNCTION workerd.notice(a_ids bigint[], a_days date[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
BEGIN
    PERFORM workerd.enqueue(t.on_failure, jsonb_build_object('job_id', h.id, 'task', h.task, 'attempt', h.attempt, 'error', left(h.error, 16000),
        'payload', CASE WHEN octet_length(h.payload::text) <= 800000 THEN h.payload END),
        traceparent => h.options #>> '{trace,traceparent}', tracestate => h.options #>> '{trace,tracestate}')
    FROM workerd.history h JOIN workerd.task t ON t.name = h.task
    WHERE h.id = ANY (a_ids) AND h.expires_on = ANY (a_days) AND h.state = 'failed' AND t.on_failure IS NOT NULL;
END $$;
