CREATE OR REPLACE FUNCTION workerd.payloads(a_lane int, a_pos bigint[]) RETURNS TABLE (pos bigint, payload text)
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    SELECT r.pos, r.payload::text FROM workerd.ready r WHERE r.lane = a_lane AND r.pos = ANY (a_pos)
$$;

COMMENT ON FUNCTION workerd.payloads IS
    'Returns the payloads that a claim left out.';
