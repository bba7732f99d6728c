CREATE OR REPLACE FUNCTION workerd.tokens(a_scope text, a_name text, a_line text, a_rate double precision) RETURNS double precision
LANGUAGE sql VOLATILE AS $$
    SELECT coalesce((
        SELECT least(greatest(1, a_rate * 0.5), b.tokens + greatest(0, extract(epoch FROM clock_timestamp() - b.at)) * a_rate)
        FROM workerd.bucket b WHERE b.scope = a_scope AND b.name = a_name AND b.line = a_line), 1)
$$;

COMMENT ON FUNCTION workerd.tokens IS
    'Returns the tokens of a rate limit as of now; up to half a second of them is saved up.';
