CREATE OR REPLACE FUNCTION workerd.drop_history_day(a_day date) RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF a_day >= (now() AT TIME ZONE 'UTC')::date THEN
        RAISE EXCEPTION 'the history of % has not expired', a_day USING ERRCODE = 'invalid_parameter_value';
    END IF;
    EXECUTE format('DROP TABLE IF EXISTS workerd.%I', 'history_' || to_char(a_day, 'YYYYMMDD'));
    DELETE FROM workerd.history_day WHERE day = a_day;
END $$;

REVOKE EXECUTE ON FUNCTION workerd.drop_history_day FROM PUBLIC;

COMMENT ON FUNCTION workerd.drop_history_day IS
    'Drops the history''s partition of a day that has passed. Runs with the rights of the schema''s owner.';
