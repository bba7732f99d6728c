CREATE OR REPLACE FUNCTION workerd.retry(a_id bigint) RETURNS text LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    was text;
    ignored text;
BEGIN
    WITH gone AS (
        DELETE FROM workerd.scheduled WHERE id = a_id AND waits IS DISTINCT FROM 'limit' AND (options ? 'batch') IS NOT TRUE RETURNING *)
    SELECT workerd.queue_now(id, lane, attempt, failures, crashes, max_retries, task, key, enqueued_at, payload, attempts, options),
        CASE waits WHEN 'jobs' THEN 'blocked' ELSE 'scheduled' END INTO ignored, was FROM gone;
    IF was IS NULL THEN
        WITH gone AS (DELETE FROM workerd.history WHERE id = a_id AND state IN ('failed', 'cancelled') RETURNING *),
        locked AS (INSERT INTO workerd.key (key, id) SELECT key, id FROM gone WHERE key IS NOT NULL),
        anew AS (DELETE FROM workerd.awaited w USING gone g WHERE w.id = g.id AND w.timed_out)
        SELECT workerd.queue_now(id, lane, attempt, 0, 0, max_retries, task, key, enqueued_at, payload,
            CASE WHEN started_at IS NULL THEN attempts ELSE workerd.with_attempt(attempts, attempt,
                (SELECT n.name FROM workerd.node n WHERE n.id = node), started_at, state, error, fingerprint, finished_at) END,
            nullif(options - 'deadline', '{}')), state INTO ignored, was
        FROM gone;
    END IF;
    IF was IS NOT NULL THEN
        PERFORM pg_notify('workerd', 'ready');
        RETURN was;
    END IF;
    SELECT q.state INTO was FROM (
        SELECT CASE WHEN EXISTS (SELECT FROM workerd.lease e WHERE e.lane = r.lane AND e.last >= r.pos AND e.tickets @> r.pos) THEN 'running' ELSE 'queued' END AS state
        FROM workerd.ready r WHERE r.id = a_id
        UNION ALL SELECT 'queued' FROM workerd.scheduled s WHERE s.id = a_id
        UNION ALL SELECT h.state FROM workerd.history h WHERE h.id = a_id) q LIMIT 1;
    RETURN coalesce(was, 'unknown');
EXCEPTION WHEN unique_violation THEN
    RETURN 'key taken';
END $$;

COMMENT ON FUNCTION workerd.retry IS
    'Queues a failed, cancelled, scheduled or blocked job now, with all its retries. Under a limit it waits for its '
    'turn. Returns the state that it was in; nothing is changed for unknown, queued, running and succeeded.';
