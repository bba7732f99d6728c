CREATE OR REPLACE FUNCTION workerd.await_signal(
    a_node bigint, a_n bigint[], a_pos bigint, a_id bigint, a_event text, a_timeout double precision,
    OUT answer jsonb, OUT seconds_left double precision
) LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
DECLARE
    waits workerd.awaited;
BEGIN
    IF NOT EXISTS (SELECT FROM workerd.lease l WHERE l.node = a_node AND l.n = ANY (a_n) AND l.tickets @> a_pos) THEN
        RETURN;
    END IF;
    INSERT INTO workerd.awaited (id, event, until) VALUES (a_id, a_event, clock_timestamp() + make_interval(secs => a_timeout))
    ON CONFLICT DO NOTHING;
    SELECT * INTO waits FROM workerd.awaited w WHERE w.id = a_id AND w.event = a_event;
    IF NOT waits.timed_out THEN
        SELECT s.payload INTO answer FROM workerd.signal s WHERE s.id = a_id AND s.event = a_event;
        IF FOUND THEN
            UPDATE workerd.signal s SET taken = true WHERE s.id = a_id AND s.event = a_event AND NOT s.taken;
            RETURN;
        END IF;
        seconds_left := extract(epoch FROM waits.until - clock_timestamp());
        IF seconds_left > 0 THEN
            RETURN;
        END IF;
        UPDATE workerd.awaited w SET timed_out = true WHERE w.id = a_id AND w.event = a_event;
    END IF;
    seconds_left := 0;
END $$;

COMMENT ON FUNCTION workerd.await_signal IS
    'Ends the attempt of a job that waits for an event, unless the event has been signalled already.';
