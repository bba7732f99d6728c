CREATE OR REPLACE FUNCTION workerd.positions(a_set int8multirange) RETURNS SETOF bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT generate_series(lower(r), upper(r) - 1) FROM unnest(a_set) r
$$;

COMMENT ON FUNCTION workerd.positions IS
    'Lists the tickets of a multirange in order.';
