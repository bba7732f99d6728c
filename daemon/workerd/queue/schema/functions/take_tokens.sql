CREATE OR REPLACE FUNCTION workerd.take_tokens(a_scope text, a_name text, a_line text, a_rate double precision, a_count int) RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO workerd.bucket AS b (scope, name, line, tokens, at)
    VALUES (a_scope, a_name, a_line, workerd.tokens(a_scope, a_name, a_line, a_rate) - a_count, clock_timestamp())
    ON CONFLICT (scope, name, line) DO UPDATE SET tokens = excluded.tokens, at = excluded.at
$$;

COMMENT ON FUNCTION workerd.take_tokens IS
    'Takes tokens of a rate limit.';
