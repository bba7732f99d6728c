CREATE OR REPLACE FUNCTION workerd.lost_number(a_text text) RETURNS text LANGUAGE sql STABLE SET extra_float_digits = 1 AS $$
    SELECT m[1] FROM regexp_matches(regexp_replace(a_text, '"(?:[^"\\]|\\.)*"', '', 'g'), '-?[0-9.]{19,}', 'g') m
    WHERE CASE WHEN length(m[1]) < 300 AND length(trim('-0' FROM replace(m[1], '.', ''))) <= 17 THEN false
        WHEN strpos(m[1], '.') = 0 AND m[1]::numeric BETWEEN -9223372036854775808 AND 18446744073709551615 THEN false
        WHEN abs(m[1]::numeric) > 1.7976931348623157e308 OR abs(m[1]::numeric) BETWEEN 1e-1000 AND 4.9e-324 THEN true
        ELSE m[1]::float8::text::numeric <> m[1]::numeric END LIMIT 1
$$;

COMMENT ON FUNCTION workerd.lost_number IS
    'Returns a number of a JSON text that programs would read as another number: an integer of more than 64 bits, '
    'or one that a double does not hold. NULL when there is none.';
