CREATE OR REPLACE FUNCTION workerd.quarantine(
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

COMMENT ON FUNCTION workerd.quarantine IS
    'Fails a job whose row, or whose end, cannot be processed, and keeps it for 30 days: the job of a ticket in a '
    'lane, or, without a lane, the job with this id in workerd.scheduled. The caller holds the row, by a lock or by '
    'a lease. With a node its attempt counts as begun. Nothing here can be refused because of what the row holds. '
    'Returns whether there was such a row.';
