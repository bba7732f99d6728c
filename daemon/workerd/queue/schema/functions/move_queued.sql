CREATE OR REPLACE FUNCTION workerd.move_queued(a_from int, a_to int, a_before timestamptz, a_ageing double precision, a_rows int) RETURNS int
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    taken int8multirange;
    first bigint[];
    moved int;
BEGIN
    PERFORM workerd.need_read_committed('a move of jobs');
    PERFORM workerd.lock_lane(a_from);
    SELECT coalesce(range_agg(l.tickets), '{}') INTO taken FROM workerd.lease l WHERE l.lane = a_from;
    first := ARRAY(
        SELECT w.pos FROM (SELECT r.pos FROM workerd.ready r WHERE r.lane = a_from ORDER BY r.pos LIMIT a_rows) w WHERE NOT w.pos <@ taken ORDER BY w.pos);
    IF workerd.is_careful() THEN
        PERFORM workerd.sift(format('SELECT workerd.move_early(%s, %s, %L, %L, $1)', a_from, a_to, a_before, a_ageing), first, a_from);
        moved := 0;  -- not counted
    ELSE
        moved := workerd.move_early(a_from, a_to, a_before, a_ageing, first);
    END IF;
    PERFORM workerd.wake(a_to) WHERE moved > 0 OR workerd.is_careful();
    RETURN moved;
END $$;

COMMENT ON FUNCTION workerd.move_queued IS
    'Moves queued jobs of one lane to another one, among its first a_rows: with a_ageing (seconds for each step of '
    'priority) the jobs that have waited long enough to rise to the other lane''s priority, otherwise those that '
    'have waited since a_before. Runs under the lock of the first lane; jobs on a lease stay. Returns how many were '
    'moved.';
