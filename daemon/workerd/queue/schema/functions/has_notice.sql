CREATE OR REPLACE FUNCTION workerd.has_notice(a_task text) RETURNS boolean LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
BEGIN
    RETURN EXISTS (SELECT FROM workerd.task t WHERE t.name = a_task AND t.on_failure IS NOT NULL);
END $$;

COMMENT ON FUNCTION workerd.has_notice IS
    'Says whether a task names another one to run when one of its jobs has failed for good.';
