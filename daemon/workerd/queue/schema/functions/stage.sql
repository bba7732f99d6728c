CREATE OR REPLACE FUNCTION workerd.stage(a_rows int, OUT staged int, OUT next_in double precision) LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET jit = off AS $$
DECLARE
    moment timestamptz := clock_timestamp();  -- a value, which the index can be asked for
    due bigint[] := ARRAY(
        SELECT s.id FROM workerd.scheduled s WHERE s.waits IS NULL AND s.run_at <= moment AND s.run_at > '-infinity'
        ORDER BY s.run_at LIMIT a_rows FOR UPDATE SKIP LOCKED);
    never bigint;
BEGIN
    staged := cardinality(due);
    IF workerd.is_careful() THEN
        PERFORM workerd.sift('SELECT workerd.queue_due($1)', due);
    ELSIF staged > 0 THEN
        PERFORM workerd.queue_due(due);
    END IF;
    -- no time at which a job could run, and older servers cannot reckon with it
    FOR never IN SELECT s.id FROM workerd.scheduled s WHERE s.waits IS NULL AND s.run_at IN ('infinity', '-infinity') FOR UPDATE SKIP LOCKED LOOP
        IF NOT workerd.is_careful() THEN
            RAISE EXCEPTION 'the run_at of job % is infinite', never USING ERRCODE = '22008';
        END IF;
        PERFORM workerd.quarantine(never, NULL, 'its run_at is infinite');
    END LOOP;
    SELECT extract(epoch FROM min(s.run_at) - clock_timestamp()) INTO next_in
    FROM workerd.scheduled s WHERE s.waits IS NULL AND s.run_at > '-infinity' AND s.run_at < 'infinity';
END $$;

COMMENT ON FUNCTION workerd.stage IS
    'Queues scheduled jobs that are due, at most a_batch of them, or moves them into their groups under a limit.';
