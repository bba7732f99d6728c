CREATE OR REPLACE FUNCTION workerd.key_holder(a_key text) RETURNS bigint LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
BEGIN
    RETURN (SELECT k.id FROM workerd.key k WHERE k.key = a_key);
END $$;

COMMENT ON FUNCTION workerd.key_holder IS
    'Returns the id of the unfinished job that holds a key. A function of its own, so that its plan does not depend '
    'on how many keys there were when it was made.';
