-- Steps that a job has behind it, and answers from outside that it waits for. Both stay while the job could run again.

-- part: tables
CREATE TABLE workerd.step (
    id bigint NOT NULL,
    name text NOT NULL CHECK (name <> '' AND length(name) <= 200),
    result jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (id, name)
);

CREATE TABLE workerd.awaited (
    id bigint NOT NULL,
    event text NOT NULL CHECK (event <> '' AND length(event) <= 200),
    until timestamptz NOT NULL,
    timed_out boolean NOT NULL DEFAULT false,  -- the handler was told so: an answer that comes later changes nothing
    PRIMARY KEY (id, event)
);

CREATE TABLE workerd.signal (
    id bigint NOT NULL,
    event text NOT NULL CHECK (event <> '' AND length(event) <= 200),
    payload jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    taken boolean NOT NULL DEFAULT false,      -- the handler has seen it
    PRIMARY KEY (id, event)
);
CREATE INDEX signal_untaken ON workerd.signal (id) WHERE NOT taken;

-- part: functions
-- Answers a job that waits for an event, or will; false when it was answered before, which holds. It takes no lock that others need:
-- the leader finds the answer and queues the job.
CREATE FUNCTION workerd.signal(id bigint, event text, payload jsonb DEFAULT 'null') RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    IF NOT EXISTS (SELECT FROM workerd.ready r WHERE r.id = signal.id) AND NOT EXISTS (SELECT FROM workerd.scheduled s WHERE s.id = signal.id) THEN
        RAISE EXCEPTION 'job % is finished or does not exist: it takes no signal', signal.id USING ERRCODE = 'no_data_found';
    END IF;
    IF octet_length(signal.payload::text) > 1000000 THEN
        RAISE EXCEPTION 'the payload of % is over 1 MB: store the data elsewhere and pass a reference', signal.event
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO workerd.signal (id, event, payload) VALUES (signal.id, signal.event, coalesce(signal.payload, 'null')) ON CONFLICT DO NOTHING;
    RETURN FOUND;
END $$;

-- What a running job learns of an event: the answer, or the seconds that are left for it (none: it has timed out, for good). Nothing of
-- both when no lease of the node holds the job.
CREATE FUNCTION workerd.await_signal(
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

-- Makes jobs due that wait for what has been answered. It asks again and again: neither does a transaction that signals see a job that is
-- about to wait, nor that job the transaction.
CREATE FUNCTION workerd.wake_signalled() RETURNS void LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
BEGIN
    UPDATE workerd.scheduled s SET run_at = clock_timestamp() WHERE s.id = ANY (ARRAY(
        SELECT c.id FROM workerd.signal g JOIN workerd.awaited w USING (id, event) JOIN workerd.scheduled c USING (id)
        WHERE NOT g.taken AND NOT w.timed_out AND c.run_at > clock_timestamp() AND c.attempts -> -1 ->> 'outcome' = 'snoozed'
        FOR UPDATE OF c SKIP LOCKED));
END $$;
