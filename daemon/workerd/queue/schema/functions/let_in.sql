CREATE OR REPLACE FUNCTION workerd.let_in(a_ids bigint[], a_task text, a_queue text, a_key_rate double precision) RETURNS void
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    lines text[];
BEGIN
    WITH gone AS (DELETE FROM workerd.scheduled s WHERE s.id = ANY (a_ids) RETURNING *),
    put AS (
        INSERT INTO workerd.ready (lane, id, attempt, failures, crashes, max_retries, task, key, enqueued_at, queued_at, payload, attempts, options)
        SELECT g.lane, g.id, g.attempt, g.failures, g.crashes, g.max_retries, g.task, g.key, g.enqueued_at, g.run_at, g.payload, g.attempts,
            coalesce(g.options, '{}') || '{"limited": true}'
        FROM gone g JOIN unnest(a_ids) WITH ORDINALITY AS o(id, place) ON o.id = g.id ORDER BY o.place),
    held AS (INSERT INTO workerd.slot (id, task, queue, line) SELECT g.id, a_task, a_queue, g.line FROM gone g)
    SELECT array_agg(g.line) INTO lines FROM gone g;
    IF a_key_rate IS NOT NULL THEN
        PERFORM workerd.take_tokens('key', a_task, c.line, a_key_rate, c.n::int) FROM (SELECT l AS line, count(*) AS n FROM unnest(lines) l GROUP BY l) c;
    END IF;
END $$;

COMMENT ON FUNCTION workerd.let_in IS
    'Queues jobs of one task, in this order, each with an admission.';
