CREATE OR REPLACE FUNCTION workerd.split_lease(a_node bigint, a_n bigint, a_pos bigint, a_new bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    held workerd.lease;
    alone int8multirange := int8multirange(int8range(a_pos, a_pos + 1));
BEGIN
    SELECT * INTO held FROM workerd.lease WHERE node = a_node AND n = a_n AND tickets @> a_pos FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF held.tickets <@ alone THEN
        UPDATE workerd.lease SET n = a_new WHERE node = a_node AND n = a_n;
    ELSE
        UPDATE workerd.lease SET tickets = held.tickets - alone, cancel = held.cancel - alone WHERE node = a_node AND n = a_n;
        INSERT INTO workerd.lease (node, n, lane, tickets, cancel, last, claimed_at)
        VALUES (a_node, a_new, held.lane, alone, held.cancel * alone, a_pos, held.claimed_at);
    END IF;
    RETURN true;
END $$;

COMMENT ON FUNCTION workerd.split_lease IS
    'Moves one ticket into a lease of its own, so that a transaction that finishes this job blocks no other job of '
    'the batch.';
