CREATE OR REPLACE FUNCTION workerd.quarantine_held(a_node bigint, a_n bigint, a_pos bigint, a_reason text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET jit = off AS $$
DECLARE
    held workerd.lease;
    this int8multirange := int8multirange(int8range(a_pos, a_pos + 1));
BEGIN
    SELECT * INTO held FROM workerd.lease l WHERE l.node = a_node AND l.n = a_n AND l.tickets @> a_pos FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    ELSIF held.tickets <@ this THEN
        DELETE FROM workerd.lease l WHERE l.node = a_node AND l.n = a_n;
    ELSE
        UPDATE workerd.lease l SET tickets = l.tickets - this WHERE l.node = a_node AND l.n = a_n;
    END IF;
    RETURN workerd.quarantine(a_pos, held.lane, a_reason, a_node, held.claimed_at);
END $$;

COMMENT ON FUNCTION workerd.quarantine_held IS
    'Quarantines a job that a lease holds, and returns whether the lease held it.';
