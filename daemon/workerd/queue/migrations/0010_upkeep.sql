-- The history's partitions belong to the owner of the schema. Daemons that work under another role make and drop them by these functions
-- alone, which act as the owner and trust no name that the caller's search_path could give another meaning.

-- part: partitions of the history
ALTER FUNCTION workerd.add_history_days SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
REVOKE EXECUTE ON FUNCTION workerd.add_history_days FROM PUBLIC;

-- Drops the partition of a day that has passed.
CREATE FUNCTION workerd.drop_history_day(a_day date) RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF a_day >= (now() AT TIME ZONE 'UTC')::date THEN
        RAISE EXCEPTION 'the history of % has not expired', a_day USING ERRCODE = 'invalid_parameter_value';
    END IF;
    EXECUTE format('DROP TABLE IF EXISTS workerd.%I', 'history_' || to_char(a_day, 'YYYYMMDD'));
    DELETE FROM workerd.history_day WHERE day = a_day;
END $$;
REVOKE EXECUTE ON FUNCTION workerd.drop_history_day FROM PUBLIC;
