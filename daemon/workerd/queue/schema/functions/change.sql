CREATE OR REPLACE FUNCTION workerd.change(
    a_id bigint, a_payload jsonb DEFAULT NULL, a_lane int DEFAULT NULL, a_run_at timestamptz DEFAULT NULL, a_max_retries int DEFAULT NULL
) RETURNS text LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    spot record;
    was text;
    changed int;
    to_lane int;
    of_task text := CASE WHEN a_payload IS NOT NULL THEN (
        SELECT r.task FROM workerd.ready r WHERE r.id = a_id UNION ALL SELECT s.task FROM workerd.scheduled s WHERE s.id = a_id LIMIT 1) END;
BEGIN
    PERFORM workerd.need_read_committed('a change of a job');
    PERFORM workerd.need_time('run_at', a_run_at);
    PERFORM workerd.need_options('-', NULL, NULL, a_max_retries, NULL, NULL);
    IF a_payload IS NOT NULL THEN
        PERFORM workerd.need_payload(coalesce(of_task, format('job %s', a_id)), a_payload);
        PERFORM workerd.need_line(of_task, a_payload);
    END IF;
    UPDATE workerd.scheduled s SET payload = coalesce(a_payload, s.payload), lane = coalesce(a_lane, s.lane), run_at = coalesce(a_run_at, s.run_at),
        max_retries = coalesce(a_max_retries, s.max_retries),
        waits = CASE WHEN s.waits = 'limit' THEN NULL ELSE s.waits END, line = NULL  -- it is staged anew, into whichever line is its own now
    FROM workerd.scheduled o WHERE s.id = a_id AND o.id = s.id
    RETURNING CASE o.waits WHEN 'jobs' THEN 'blocked' WHEN 'limit' THEN 'queued' ELSE 'scheduled' END INTO was;
    IF was IS NOT NULL THEN
        PERFORM workerd.wake_leader();
        RETURN was;
    END IF;
    SELECT q.* INTO spot FROM (
        SELECT CASE WHEN e.node IS NULL THEN 'queued' ELSE 'running' END AS state, r.lane, r.pos
        FROM workerd.ready r LEFT JOIN workerd.lease e ON e.lane = r.lane AND e.last >= r.pos AND e.tickets @> r.pos WHERE r.id = a_id
        UNION ALL SELECT 'final', h.lane, NULL FROM workerd.history h WHERE h.id = a_id) q LIMIT 1;
    IF spot.state IS DISTINCT FROM 'queued' THEN
        RETURN coalesce(spot.state, CASE WHEN EXISTS (SELECT FROM workerd.scheduled s WHERE s.id = a_id) THEN 'again' ELSE 'unknown' END);
    END IF;
    PERFORM workerd.lock_lane(spot.lane);
    IF EXISTS (SELECT FROM workerd.lease e WHERE e.lane = spot.lane AND e.last >= spot.pos AND e.tickets @> spot.pos) THEN
        RETURN 'again';
    END IF;
    to_lane := coalesce(a_lane, spot.lane);
    IF a_run_at > now() OR to_lane <> spot.lane THEN  -- staged into the other lane, whose limits may differ
        WITH gone AS (DELETE FROM workerd.ready r WHERE r.lane = spot.lane AND r.pos = spot.pos RETURNING r.*)
        INSERT INTO workerd.scheduled (id, lane, run_at, attempt, failures, crashes, max_retries, task, key, enqueued_at, payload, attempts, options)
        SELECT id, to_lane, coalesce(a_run_at, g.queued_at), attempt, failures, crashes, coalesce(a_max_retries, max_retries), task, key, enqueued_at,
            coalesce(a_payload, payload), attempts, nullif(options - 'limited', '{}') FROM gone g;
    ELSE
        UPDATE workerd.ready r SET payload = coalesce(a_payload, r.payload), max_retries = coalesce(a_max_retries, r.max_retries)
        WHERE r.lane = spot.lane AND r.pos = spot.pos;
    END IF;
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM workerd.wake_leader();
    RETURN CASE WHEN changed = 1 THEN 'queued' ELSE 'again' END;
END $$;

COMMENT ON FUNCTION workerd.change IS
    'Changes a job that has not started; NULL leaves a value as it is. Returns the state that it was in. Nothing is '
    'changed for running, final and unknown, nor for again: it moved meanwhile. A queued job is changed under the '
    'lock of its lane, which is held until the transaction ends.';
