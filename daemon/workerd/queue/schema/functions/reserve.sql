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

COMMENT ON FUNCTION workerd.reserve IS
    'Draws ids for jobs that the caller copies into the queue, and returns their lane and due time; with limited '
    'the rows are not the caller''s to place.';
