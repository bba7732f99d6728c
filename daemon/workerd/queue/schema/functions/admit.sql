CREATE OR REPLACE FUNCTION workerd.admit(a_rows int, a_ahead int, OUT admitted int, OUT queued int, OUT next_in double precision)
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    pool record;
    room int;
    ahead int;
    tokens double precision;
    taken int;
BEGIN
    admitted := 0;
    queued := 0;
    DELETE FROM workerd.slot s WHERE NOT EXISTS (SELECT FROM workerd.ready r WHERE r.id = s.id);
    FOR pool IN
        WITH RECURSIVE pools(task, lane) AS (
            (SELECT s.task, s.lane FROM workerd.scheduled s WHERE s.waits = 'limit' ORDER BY s.task, s.lane LIMIT 1)
            UNION ALL
            SELECT n.task, n.lane FROM pools p, LATERAL (
                SELECT s.task, s.lane FROM workerd.scheduled s WHERE s.waits = 'limit' AND (s.task, s.lane) > (p.task, p.lane) ORDER BY s.task, s.lane LIMIT 1) n)
        SELECT p.task, p.lane, l.queue, q.rate AS queue_rate, q.concurrency AS queue_concurrency, t.rate AS task_rate, t.concurrency AS task_concurrency,
            k.rate AS key_rate, k.concurrency AS key_concurrency
        FROM pools p JOIN workerd.lane l ON l.id = p.lane JOIN workerd.queue o ON o.name = l.queue AND o.paused_at IS NULL
        LEFT JOIN workerd.limit_in_force q ON q.scope = 'queue' AND q.name = l.queue
        LEFT JOIN workerd.limit_in_force t ON t.scope = 'task' AND t.name = p.task
        LEFT JOIN workerd.limit_in_force k ON k.scope = 'key' AND k.name = p.task
        ORDER BY l.priority DESC, random()
    LOOP
        SELECT count(*) INTO ahead FROM workerd.slot s JOIN workerd.ready r ON r.id = s.id
        WHERE s.task = pool.task
            AND NOT EXISTS (SELECT FROM workerd.lease e WHERE e.lane = r.lane AND e.last >= r.pos AND e.tickets @> r.pos);
        queued := queued + ahead;
        room := least(a_rows - admitted, a_ahead - ahead,
            pool.queue_concurrency - (SELECT count(*) FROM workerd.slot s WHERE s.queue = pool.queue AND pool.queue_concurrency IS NOT NULL),
            pool.task_concurrency - (SELECT count(*) FROM workerd.slot s WHERE s.task = pool.task AND pool.task_concurrency IS NOT NULL));
        CONTINUE WHEN room <= 0;
        IF pool.queue_rate IS NOT NULL THEN
            tokens := workerd.tokens('queue', pool.queue, '', pool.queue_rate);
            room := least(room, floor(tokens));
            next_in := least(next_in, (1 - tokens + floor(tokens)) / pool.queue_rate);
        END IF;
        IF pool.task_rate IS NOT NULL THEN
            tokens := workerd.tokens('task', pool.task, '', pool.task_rate);
            room := least(room, floor(tokens));
            next_in := least(next_in, (1 - tokens + floor(tokens)) / pool.task_rate);
        END IF;
        CONTINUE WHEN room <= 0;
        IF pool.key_rate IS NOT NULL THEN
            next_in := least(next_in, greatest(0.02, 1 / pool.key_rate / 4));
        END IF;
        taken := workerd.admit_pool(pool.task, pool.lane, pool.queue, room, pool.key_rate, pool.key_concurrency);
        admitted := admitted + taken;
        queued := queued + taken;
        IF pool.queue_rate IS NOT NULL AND taken > 0 THEN
            PERFORM workerd.take_tokens('queue', pool.queue, '', pool.queue_rate, taken);
        END IF;
        IF pool.task_rate IS NOT NULL AND taken > 0 THEN
            PERFORM workerd.take_tokens('task', pool.task, '', pool.task_rate, taken);
        END IF;
        IF taken > 0 THEN
            PERFORM workerd.wake(pool.lane);
        END IF;
    END LOOP;
END $$;

COMMENT ON FUNCTION workerd.admit IS
    'Admits jobs that wait under a limit, up to a_rows of them, as far as rates and concurrency allow.';
