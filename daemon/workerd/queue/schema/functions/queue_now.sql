CREATE OR REPLACE FUNCTION workerd.queue_now(
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

COMMENT ON FUNCTION workerd.queue_now IS
    'Queues a job that the caller has removed from where it was.';
