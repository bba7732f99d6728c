CREATE OR REPLACE FUNCTION workerd.tell_children(a_ids bigint[], a_state text) RETURNS void
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off AS $$
BEGIN
    UPDATE workerd.dependency d SET ended = a_state, news = true WHERE d.parent = ANY (a_ids) AND d.ended IS NULL;
    IF FOUND THEN
        PERFORM workerd.wake_leader();
    END IF;
END $$;

COMMENT ON FUNCTION workerd.tell_children IS
    'Records that jobs have ended, for the jobs that wait for them.';
