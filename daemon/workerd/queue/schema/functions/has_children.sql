CREATE OR REPLACE FUNCTION workerd.has_children() RETURNS boolean LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
BEGIN
    RETURN EXISTS (SELECT FROM workerd.dependency WHERE ended IS NULL);
END $$;

COMMENT ON FUNCTION workerd.has_children IS
    'Says whether any job waits for another one.';
