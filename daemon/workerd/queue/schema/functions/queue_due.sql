CREATE OR REPLACE FUNCTION workerd.queue_due(a_due bigint[]) RETURNS void LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET jit = off AS $$
DECLARE
    due bigint[] := a_due;
    lanes int[];
BEGIN
    IF EXISTS (SELECT FROM workerd.lane l WHERE l.limited) OR EXISTS (SELECT FROM workerd.task t WHERE t.limited) THEN
        WITH held AS (
            UPDATE workerd.scheduled s SET waits = 'limit', line = workerd.line_of(s.task, s.payload)
            WHERE s.id = ANY (a_due) AND workerd.is_limited(s.lane, s.task) RETURNING s.id)
        SELECT coalesce(array_agg(d), '{}') INTO due FROM unnest(a_due) d WHERE NOT EXISTS (SELECT FROM held h WHERE h.id = d);
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
END $$;

COMMENT ON FUNCTION workerd.queue_due IS
    'Queues these scheduled jobs, which are due, or moves them into their groups under a limit.';
