CREATE OR REPLACE FUNCTION workerd.signal(id bigint, event text, payload jsonb DEFAULT 'null') RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF NOT EXISTS (SELECT FROM workerd.ready r WHERE r.id = signal.id) AND NOT EXISTS (SELECT FROM workerd.scheduled s WHERE s.id = signal.id) THEN
        RAISE EXCEPTION 'job % is finished or does not exist: it takes no signal', signal.id USING ERRCODE = 'no_data_found';
    END IF;
    IF coalesce(length(signal.event), 0) NOT BETWEEN 1 AND 200 THEN
        RAISE EXCEPTION 'the name of an event has % characters, allowed are 1 to 200', coalesce(length(signal.event), 0)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF workerd.json_fault(signal.payload) IS NOT NULL THEN
        RAISE EXCEPTION 'the payload of % %', signal.event, workerd.json_fault(signal.payload) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO workerd.signal (id, event, payload) VALUES (signal.id, signal.event, coalesce(signal.payload, 'null')) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM workerd.wake_leader();
    RETURN true;
END $$;

REVOKE EXECUTE ON FUNCTION workerd.signal FROM PUBLIC;

COMMENT ON FUNCTION workerd.signal IS
    'Answers a job that waits for an event, or will wait for it. Returns false when it was answered before; the '
    'first answer holds. Takes no lock that others need: the leader finds the answer and queues the job. Runs with '
    'the rights of the schema''s owner.';
