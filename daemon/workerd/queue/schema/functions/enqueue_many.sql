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

REVOKE EXECUTE ON FUNCTION workerd.enqueue_many FROM PUBLIC;

COMMENT ON FUNCTION workerd.enqueue_many IS
    'Enqueues one job for each payload, all with the same options, and returns their ids in this order. Runs with '
    'the rights of the schema''s owner.';
