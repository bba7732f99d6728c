CREATE OR REPLACE FUNCTION workerd.depend(a_child bigint, a_parents bigint[]) RETURNS void LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
DECLARE
    missing bigint;
BEGIN
    SELECT p INTO missing FROM unnest(a_parents) p
    WHERE p IS NULL OR NOT EXISTS (SELECT FROM workerd.ready r WHERE r.id = p) AND NOT EXISTS (SELECT FROM workerd.scheduled s WHERE s.id = p)
        AND NOT EXISTS (SELECT FROM workerd.history h WHERE h.id = p) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'after: there is no job % (never enqueued, or it is not kept any more)', missing USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO workerd.dependency (child, parent) SELECT DISTINCT a_child, p FROM unnest(a_parents) p;
    INSERT INTO workerd.unlooked (child) VALUES (a_child);
END $$;

COMMENT ON FUNCTION workerd.depend IS
    'Records the jobs that a new job waits for, each once.';
