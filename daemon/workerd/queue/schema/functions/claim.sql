CREATE OR REPLACE FUNCTION workerd.claim(
    a_node bigint, a_n bigint, a_lanes int[], a_lows bigint[], a_batch int, a_tasks text[], a_free boolean, a_alone boolean,
    a_last_chance int, a_rest boolean
) RETURNS workerd.answer
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    got workerd.answer;
    low bigint;
    taken int8multirange;
    size int;
    crashed bigint;
    alive boolean;
    ignored text;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a claim needs READ COMMITTED';
    END IF;
    LOOP
        -- The first lane that has anything is locked; what is unlocked is our sleep, for a claimer's session holds no other locks.
        -- The lock, the leases and the rows in three statements in this order: each snapshot sees what the former waited for.
        SELECT l.lane, l.low, workerd.lock_lane(l.lane), pg_advisory_unlock_all(),
            EXISTS (SELECT FROM workerd.node d WHERE d.id = a_node AND d.dead_at IS NULL)
        INTO got.lane, low, ignored, ignored, alive
        FROM unnest(a_lanes, a_lows) AS l(lane, low)
        WHERE (SELECT true FROM workerd.ready r WHERE r.lane = l.lane AND r.pos >= l.low LIMIT 1) LIMIT 1;
        EXIT WHEN got.lane IS NOT NULL OR got.asleep OR NOT a_rest;
        -- one more time where they are held already: there must not be a moment in which they are not
        PERFORM pg_advisory_lock_shared('workerd.queue'::regclass::oid::int, k)
            FROM (SELECT DISTINCT workerd.sleep_lock(lane) FROM unnest(a_lanes) lane) AS locks(k);
        -- After the locks, and before the look that ends this: what commits in between is neither seen nor counted as ended.
        -- In this order, and by an id of our own: transactions may run whose ids are not below the snapshot's xmax.
        got.oldest_xid := pg_snapshot_xmin(pg_current_snapshot())::text;
        got.next_xid := pg_current_xact_id()::text;
        got.asleep := true;
    END LOOP;
    IF got.lane IS NULL THEN
        RETURN got;
    END IF;
    got.asleep := false;
    IF NOT alive THEN
        RAISE EXCEPTION 'node % was declared dead', a_node USING ERRCODE = 'WD001';
    END IF;
    SELECT coalesce(range_agg(l.tickets), '{}') INTO taken FROM workerd.lease l WHERE l.lane = got.lane AND l.last >= low;
    SELECT array_agg(s.pos), array_agg(s.id), array_agg(s.task), array_agg(date_part('epoch', clock_timestamp() - s.queued_at)),
        array_agg(CASE WHEN pg_column_size(s.payload) <= 2048 THEN s.payload::text END),
        jsonb_agg(jsonb_build_array(s.pos, s.attempt, s.failures, s.crashes, s.max_retries, s.key)
            || CASE WHEN s.options IS NULL THEN '[]' ELSE workerd.asked_now(s.options) END)
            FILTER (WHERE s.attempt > 0 OR s.crashes > 0 OR s.max_retries IS NOT NULL OR s.key IS NOT NULL OR s.options IS NOT NULL),
        count(*), min(s.pos) FILTER (WHERE s.crashes > 0)
    INTO got.pos, got.id, got.task, got.waited, got.payload, got.marks, size, crashed
    FROM (
        SELECT r.* FROM workerd.ready r
        WHERE r.lane = got.lane AND r.pos >= low AND NOT r.pos <@ taken AND r.task = ANY (a_tasks) AND (r.crashes < a_last_chance OR a_alone)
        ORDER BY r.pos LIMIT a_batch) s;
    IF crashed IS NOT NULL THEN
        size := CASE WHEN got.pos[1] = crashed THEN a_free::int ELSE array_position(got.pos, crashed) - 1 END;
        got.pos := got.pos[:size];
        got.id := got.id[:size];
        got.task := got.task[:size];
        got.waited := got.waited[:size];
        got.payload := got.payload[:size];
    END IF;
    IF size = 0 THEN
        SELECT coalesce(min(r.pos) FILTER (WHERE r.crashes > 0 AND NOT a_free AND NOT r.pos <@ taken AND r.task = ANY (a_tasks)) - 1, max(r.pos))
        INTO got.last FROM workerd.ready r WHERE r.lane = got.lane AND r.pos >= low;
        RETURN got;
    END IF;
    got.last := got.pos[size];
    INSERT INTO workerd.lease (node, n, lane, tickets, last)
    VALUES (a_node, a_n, got.lane, CASE WHEN got.last - got.pos[1] + 1 = size THEN int8multirange(int8range(got.pos[1], got.last + 1))
        ELSE workerd.set_of(got.pos) END, got.last);
    IF pg_column_size(got.payload) > 65536 THEN
        got.payload := NULL;
    END IF;
    RETURN got;
END $$;

COMMENT ON FUNCTION workerd.claim IS
    'Claims up to a_batch jobs of the first lane of a_lanes that has any from its low bound on. A node that was '
    'declared dead is refused (WD001), since its jobs would be taken back at once and charged for it. A job with a '
    'crash is claimed alone, and waits with all behind it until the node says a_free; on its last chance it is '
    'passed over unless a_alone (the node runs no other such job). With a_rest and nothing to claim the session '
    'subscribes to the lanes and looks once more, for what was enqueued before the lock could be seen. Payloads of '
    'more than 64 kB together are left out: the answer is sent before the commit, while the lane is locked, and '
    'must fit into the buffers in between even when nobody reads it.';
