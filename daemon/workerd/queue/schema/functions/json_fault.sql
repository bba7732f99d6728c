CREATE OR REPLACE FUNCTION workerd.json_fault(a_value jsonb, a_levels int DEFAULT 200) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    written text := a_value::text;
    size int := octet_length(written);
    bare text;
BEGIN
    IF size > 1000000 THEN  -- the spaces between its parts are the server's own
        bare := regexp_replace(written, '"(?:[^"\\]|\\.)*"', '', 'g');
        size := size - (length(bare) - length(replace(bare, ' ', '')));
        IF size > 1000000 THEN
            RETURN format('has %s bytes, the limit is 1,000,000: store the data elsewhere and pass a reference', to_char(size, 'FM999,999,999,999'));
        END IF;
    END IF;
    IF pg_column_size(a_value) > 8 * a_levels AND a_value @? format('strict $.**{%s}', a_levels + 1)::jsonpath THEN
        RETURN format('is nested more than %s levels deep: store the data elsewhere and pass a reference', a_levels);
    END IF;
    IF written ~ '[0-9.]{19}' THEN
        RETURN 'has the number ' || left(workerd.lost_number(written), 40)
            || ', which is read with less digits (allowed are integers of 64 bits and up to 17 digits): pass it as text';
    END IF;
    RETURN NULL;
END $$;

COMMENT ON FUNCTION workerd.json_fault IS
    'Says what is wrong with a JSON value, as the rest of a sentence; NULL when nothing is. Each level takes 8 '
    'bytes, so small values are not searched for depth.';
