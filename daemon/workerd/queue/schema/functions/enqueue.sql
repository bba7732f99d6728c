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

REVOKE EXECUTE ON FUNCTION workerd.enqueue FROM PUBLIC;

COMMENT ON FUNCTION workerd.enqueue IS
    'Enqueues a job and returns its id, or the id of the unfinished job that holds the same key. conflict says what '
    'becomes of that job: keep, replace (it gets this payload, place and time) or reschedule (this time alone). '
    'after lists jobs to wait for: all or any of them (after_need) must have succeeded, or finished in any way '
    '(after_end). A job that has not started by its deadline is cancelled. pin names the node that runs it, prefer '
    'the node that may have it first. traceparent and tracestate name the trace that it belongs to. Runs with the '
    'rights of the schema''s owner; only a role that may change jobs can change another job.';
