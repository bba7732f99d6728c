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

COMMENT ON FUNCTION workerd.notice IS
    'Enqueues the on_failure jobs of jobs that this transaction has written to the history as failed, to be kept '
    'until one of these days. Raises nothing for which the failures would be rolled back: whatever makes such a job '
    'too large, or an enqueue would refuse, is left out. The new job is part of the failed job''s trace.';
