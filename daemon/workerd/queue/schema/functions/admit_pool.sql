CREATE OR REPLACE FUNCTION workerd.admit_pool(
    a_task text, a_lane int, a_queue text, a_room int, a_key_rate double precision, a_key_concurrency int
) RETURNS int LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    since text := coalesce((SELECT t.line FROM workerd.turn t WHERE t.lane = a_lane AND t.task = a_task), '');
    lines text[];
    rooms int[];
    let bigint[];
    let_lines text[];
BEGIN
    WITH RECURSIVE behind(line) AS (
        (SELECT s.line FROM workerd.scheduled s WHERE s.waits = 'limit' AND s.task = a_task AND s.lane = a_lane AND s.line > since ORDER BY s.line LIMIT 1)
        UNION ALL
        SELECT n.line FROM behind b, LATERAL (
            SELECT s.line FROM workerd.scheduled s WHERE s.waits = 'limit' AND s.task = a_task AND s.lane = a_lane AND s.line > b.line ORDER BY s.line LIMIT 1) n),
    before(line) AS (
        (SELECT s.line FROM workerd.scheduled s WHERE s.waits = 'limit' AND s.task = a_task AND s.lane = a_lane AND s.line <= since ORDER BY s.line LIMIT 1)
        UNION ALL
        SELECT n.line FROM before b, LATERAL (
            SELECT s.line FROM workerd.scheduled s WHERE s.waits = 'limit' AND s.task = a_task AND s.lane = a_lane AND s.line > b.line AND s.line <= since
            ORDER BY s.line LIMIT 1) n)
    SELECT array_agg(x.line), array_agg(x.room) INTO lines, rooms FROM (
        SELECT a.line, f.room FROM (SELECT line FROM behind UNION ALL SELECT line FROM before) a, LATERAL (
            SELECT least(a_room,
                a_key_concurrency - (SELECT count(*) FROM workerd.slot o WHERE o.task = a_task AND o.line = a.line AND a_key_concurrency IS NOT NULL),
                CASE WHEN a_key_rate IS NOT NULL THEN floor(workerd.tokens('key', a_task, a.line, a_key_rate)) END)::int AS room) f
        WHERE f.room > 0 LIMIT a_room) x;
    IF lines IS NULL THEN
        RETURN 0;
    END IF;
    SELECT array_agg(p.id), array_agg(p.line) INTO let, let_lines FROM (
        SELECT s.id, u.line FROM unnest(lines, rooms) WITH ORDINALITY AS u(line, room, place), LATERAL (
            SELECT s.id, row_number() OVER (ORDER BY s.run_at, s.id) AS turn FROM (
                SELECT s.id, s.run_at FROM workerd.scheduled s
                WHERE s.waits = 'limit' AND s.task = a_task AND s.lane = a_lane AND s.line = u.line ORDER BY s.run_at, s.id
                LIMIT least(u.room, ceil(a_room::double precision / cardinality(lines))) FOR UPDATE SKIP LOCKED) s) s
        ORDER BY s.turn, u.place LIMIT a_room) p;
    IF let IS NULL THEN
        RETURN 0;
    END IF;
    IF workerd.is_careful() THEN
        PERFORM workerd.sift(format('SELECT workerd.let_in($1, %L, %L, %L)', a_task, a_queue, a_key_rate), let);
    ELSE
        PERFORM workerd.let_in(let, a_task, a_queue, a_key_rate);
    END IF;
    INSERT INTO workerd.turn (lane, task, line) VALUES (a_lane, a_task, let_lines[cardinality(let_lines)])
    ON CONFLICT (lane, task) DO UPDATE SET line = excluded.line;
    RETURN cardinality(let);
END $$;

COMMENT ON FUNCTION workerd.admit_pool IS
    'Admits up to a_room jobs of one task in one lane, one group after the other, beginning behind the group that '
    'was served last.';
