CREATE OR REPLACE FUNCTION workerd.set_of(a_pos bigint[]) RETURNS int8multirange LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(range_agg(int8range(p, p + 1)), '{}') FROM unnest(a_pos) p
$$;

COMMENT ON FUNCTION workerd.set_of IS
    'Turns tickets into a multirange.';
