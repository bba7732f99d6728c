"""How a daemon reaches its queue: by sessions of the database, or through a manager."""
