CREATE OR REPLACE FUNCTION workerd.is_careful() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce(current_setting('workerd.careful', true), '') = 'on'
$$;

COMMENT ON FUNCTION workerd.is_careful IS
    'Says whether rows are processed one by one because a statement for all of them was refused. The caller sets '
    'this for one transaction.';
