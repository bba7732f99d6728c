CREATE OR REPLACE FUNCTION workerd.line_up(a_lane int, a_pos bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
BEGIN
    WITH gone AS (DELETE FROM workerd.ready r WHERE r.lane = a_lane AND r.pos = ANY (a_pos) RETURNING r.*)
    INSERT INTO workerd.scheduled (id, lane, run_at, attempt, failures, crashes, max_retries, task, key, enqueued_at, payload, attempts, options, waits, line)
    SELECT g.id, g.lane, g.queued_at, g.attempt, g.failures, g.crashes, g.max_retries, g.task, g.key, g.enqueued_at, g.payload, g.attempts, g.options,
        'limit', workerd.line_of(g.task, g.payload)
    FROM gone g;
END $$;

COMMENT ON FUNCTION workerd.line_up IS
    'Moves queued jobs into their groups under a limit. The caller has locked their lane; no lease holds them.';
