#!/bin/sh
# Makes the password of the local database at its first start, and leaves its address where the workers read their secrets.
set -eu
secret=/run/secrets/database_url
kept=${PGDATA%/*}/database_url # in the volume of the data, whose password it is, whatever becomes of SECRETS_DIR
if [ ! -s "$kept" ]; then
    if [ -s "$secret" ]; then
        cp "$secret" "$kept.new"
    else
        password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
        (umask 377 && echo "postgresql://worker:$password@local-db/worker?sslmode=disable" > "$kept.new")
    fi
    mv "$kept.new" "$kept"
fi
if [ ! -s "$secret" ]; then
    cp "$kept" "$secret.new"
    chown 10001:10001 "$secret.new" # the user of the worker's image
    chmod 0440 "$secret.new"
    mv "$secret.new" "$secret"
fi
POSTGRES_PASSWORD=$(sed 's|.*://worker:\([^@]*\)@.*|\1|' "$kept")
export POSTGRES_PASSWORD
exec docker-entrypoint.sh "$@"
