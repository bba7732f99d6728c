CREATE OR REPLACE FUNCTION workerd.give_back(a_node bigint, a_n bigint, a_pos bigint[], a_ttl double precision) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    held workerd.lease;
    back int8multirange;
BEGIN
    SELECT * INTO held FROM workerd.lease WHERE node = a_node AND n = a_n FOR UPDATE;
    IF NOT FOUND THEN
        RETURN '{}';
    END IF;
    back := CASE WHEN a_pos IS NULL THEN held.tickets ELSE workerd.set_of(a_pos) * held.tickets END;
    IF isempty(back) THEN
        RETURN '{}';
    END IF;
    IF held.tickets <@ back THEN
        DELETE FROM workerd.lease WHERE node = a_node AND n = a_n;
    ELSE
        UPDATE workerd.lease SET tickets = held.tickets - back WHERE node = a_node AND n = a_n;
    END IF;
    PERFORM workerd.drop_cancelled(held.lane, array(SELECT workerd.positions(back * held.cancel)), a_ttl);
    back := back - held.cancel;
    IF NOT isempty(back) THEN
        PERFORM pg_notify('workerd', format('rewind %s %s', held.lane, lower(back)));
    END IF;
    RETURN array(SELECT workerd.positions(back));
END $$;

COMMENT ON FUNCTION workerd.give_back IS
    'Returns jobs of one lease that were not started (NULL: all of them) to the queue at no cost to them, and '
    'returns the tickets that are free again.';
