-- An answer wakes the leader; who is retried after its time was over waits anew.

-- part: functions
-- Answers a job that waits for an event, or will; false when it was answered before, which holds. It takes no lock that others need:
-- the leader finds the answer and queues the job.
CREATE OR REPLACE FUNCTION workerd.signal(id bigint, event text, payload jsonb DEFAULT 'null') RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    IF NOT EXISTS (SELECT FROM workerd.ready r WHERE r.id = signal.id) AND NOT EXISTS (SELECT FROM workerd.scheduled s WHERE s.id = signal.id) THEN
        RAISE EXCEPTION 'job % is finished or does not exist: it takes no signal', signal.id USING ERRCODE = 'no_data_found';
    END IF;
    IF octet_length(signal.payload::text) > 1000000 THEN
        RAISE EXCEPTION 'the payload of % is over 1 MB: store the data elsewhere and pass a reference', signal.event
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO workerd.signal (id, event, payload) VALUES (signal.id, signal.event, coalesce(signal.payload, 'null')) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM workerd.wake_leader();
    RETURN true;
END $$;

-- Queues a failed, cancelled, scheduled or blocked job now, with all its retries. Returns the state it was in, or 'unknown', 'queued', 'running',
-- 'succeeded'. Under a limit it waits for its turn.
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
