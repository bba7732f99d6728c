CREATE OR REPLACE FUNCTION workerd.need_time(a_what text, a_time timestamptz) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF a_time < '0001-01-02 00:00:00Z' OR a_time >= '9999-01-01 00:00:00Z' THEN
        RAISE EXCEPTION '% is %, allowed are times between the years 1 and 9999', a_what, a_time USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;

COMMENT ON FUNCTION workerd.need_time IS
    'Raises an error for an infinite time, or one that programs cannot represent in every time zone.';
