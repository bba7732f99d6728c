CREATE OR REPLACE FUNCTION workerd.cancel(a_id bigint, a_ttl double precision) RETURNS text
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    spot record;
    changed int;
BEGIN
    PERFORM workerd.need_read_committed('a cancellation');
    SELECT q.* INTO spot FROM (
        SELECT CASE WHEN e.node IS NULL THEN 'queued' ELSE 'running' END AS state, r.lane, r.pos, e.node, e.n
        FROM workerd.ready r LEFT JOIN workerd.lease e ON e.lane = r.lane AND e.last >= r.pos AND e.tickets @> r.pos WHERE r.id = a_id
        UNION ALL SELECT 'scheduled', s.lane, NULL, NULL, NULL FROM workerd.scheduled s WHERE s.id = a_id
        UNION ALL SELECT 'final', h.lane, NULL, NULL, NULL FROM workerd.history h WHERE h.id = a_id) q LIMIT 1;
    IF spot.state IS NULL THEN
        RETURN 'unknown';
    ELSIF spot.state = 'final' THEN
        RETURN 'final';
    ELSIF spot.state = 'running' THEN
        UPDATE workerd.lease SET cancel = cancel + int8multirange(int8range(spot.pos, spot.pos + 1))
        WHERE node = spot.node AND n = spot.n AND tickets @> spot.pos;
        GET DIAGNOSTICS changed = ROW_COUNT;
        PERFORM pg_notify('workerd', format('cancel %s', spot.node));
    ELSIF spot.state = 'scheduled' THEN
        WITH gone AS (DELETE FROM workerd.scheduled WHERE id = a_id RETURNING *),
        unlocked AS (DELETE FROM workerd.key k USING gone g WHERE g.key IS NOT NULL AND k.key = g.key AND k.id = g.id),
        kept AS (
            INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, max_retries, enqueued_at, queued_at, task, key, payload, attempts, options)
            SELECT id, workerd.expiry(a_ttl), lane, 'cancelled', attempt, failures, crashes, max_retries, enqueued_at, run_at, task, key, payload, attempts, options FROM gone)
        SELECT count(*) INTO changed FROM gone;
        IF changed = 1 THEN
            PERFORM workerd.tell_children(ARRAY[a_id], 'cancelled');
        END IF;
    ELSE
        PERFORM workerd.lock_lane(spot.lane);
        changed := workerd.drop_cancelled(spot.lane, array(
            SELECT spot.pos WHERE NOT EXISTS (SELECT FROM workerd.lease e WHERE e.lane = spot.lane AND e.last >= spot.pos AND e.tickets @> spot.pos)), a_ttl);
    END IF;
    RETURN CASE WHEN changed = 1 THEN spot.state ELSE 'again' END;
END $$;

COMMENT ON FUNCTION workerd.cancel IS
    'Cancels a job. Returns its state: queued or scheduled (it was, and is cancelled now), running (its node is '
    'notified), final, unknown, or again: it moved meanwhile, so call again in a new transaction.';
