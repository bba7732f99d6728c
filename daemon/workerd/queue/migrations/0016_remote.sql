-- Nodes that reach the database through a manager.

-- part: whose they are
ALTER TABLE workerd.node ADD COLUMN token bigint;  -- the one with which it registered; NULL: it reaches the database
