CREATE OR REPLACE FUNCTION workerd.quarantine_next(
    a_node bigint, a_n bigint, a_lanes int[], a_lows bigint[], a_batch int, a_tasks text[], a_free boolean, a_alone boolean,
    a_last_chance int, a_rest boolean
) RETURNS boolean LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
DECLARE
    in_lane int;
    low bigint;
    taken int8multirange;
    next bigint;
    reason text;
BEGIN
    SELECT l.lane, l.low INTO in_lane, low FROM unnest(a_lanes, a_lows) WITH ORDINALITY AS l(lane, low, place)
    WHERE EXISTS (SELECT FROM workerd.ready r WHERE r.lane = l.lane AND r.pos >= l.low) ORDER BY l.place LIMIT 1;
    PERFORM workerd.lock_lane(in_lane);
    SELECT coalesce(range_agg(l.tickets), '{}') INTO taken FROM workerd.lease l WHERE l.lane = in_lane AND l.last >= low;
    SELECT r.pos INTO next FROM workerd.ready r
    WHERE r.lane = in_lane AND r.pos >= low AND NOT r.pos <@ taken AND r.task = ANY (a_tasks) AND (r.crashes < a_last_chance OR a_alone)
    ORDER BY r.pos LIMIT 1;
    IF next IS NULL THEN
        RETURN false;
    END IF;
    BEGIN
        PERFORM workerd.claim(a_node, a_n, ARRAY[in_lane], ARRAY[next], 1, a_tasks, a_free, a_alone, a_last_chance, false);
        RAISE EXCEPTION 'it can be claimed' USING ERRCODE = 'WD002';  -- which undoes the claim
    EXCEPTION
        WHEN SQLSTATE 'WD002' THEN
            RETURN false;
        WHEN data_exception OR program_limit_exceeded THEN
            reason := format('it cannot be claimed: %s', SQLERRM);
    END;
    RETURN workerd.quarantine(next, in_lane, reason);
END $$;

COMMENT ON FUNCTION workerd.quarantine_next IS
    'Takes the arguments of a claim of one job that was refused, and quarantines the job that it would have taken '
    'if that job is the reason. Repeats the claim under the lock of the lane, because another session may have '
    'taken or quarantined the job meanwhile. Returns whether it did.';
