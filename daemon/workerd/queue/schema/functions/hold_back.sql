CREATE OR REPLACE FUNCTION workerd.hold_back(a_lane int, a_since bigint, a_rows int) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    taken int8multirange;
    until bigint;
    early bigint[];
BEGIN
    PERFORM workerd.need_read_committed('to hold jobs back');
    SELECT max(w.pos) INTO until FROM (SELECT r.pos FROM workerd.ready r WHERE r.lane = a_lane AND r.pos > a_since ORDER BY r.pos LIMIT a_rows) w;
    IF until IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM workerd.lock_lane(a_lane);
    SELECT coalesce(range_agg(l.tickets), '{}') INTO taken FROM workerd.lease l WHERE l.lane = a_lane;
    early := ARRAY(
        SELECT r.pos FROM workerd.ready r WHERE r.lane = a_lane AND r.pos > a_since AND r.pos <= until AND NOT r.pos <@ taken
            AND (r.options ? 'limited') IS NOT TRUE AND workerd.is_limited(a_lane, r.task) ORDER BY r.pos);
    IF workerd.is_careful() THEN
        PERFORM workerd.sift(format('SELECT workerd.line_up(%s, $1)', a_lane), early, a_lane);
    ELSE
        PERFORM workerd.line_up(a_lane, early);
    END IF;
    RETURN until;
END $$;

COMMENT ON FUNCTION workerd.hold_back IS
    'Moves queued jobs that came before their limit was set into their groups: of one lane, among a_rows tickets '
    'behind a_since. Returns the last ticket that was looked at, or NULL when there are no more.';
