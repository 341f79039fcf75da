#!/usr/bin/env bash
# The part of the official image's entry point that a stack can see: first start makes the cluster, the user and the
# database from POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB and runs /docker-entrypoint-initdb.d; later starts
# leave everything as it is.
set -euo pipefail

secret() { # NAME: the value of $NAME, or the content of the file $NAME_FILE
    local file="$1_FILE"
    if [ -n "${!file:-}" ]; then cat "${!file}"; else printf '%s' "${!1:-}"; fi
}

if [ "${1:-}" != postgres ] && [ "${1#-}" = "${1:-}" ]; then
    exec "$@"
fi
[ "${1#-}" = "$1" ] || set -- postgres "$@"

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    find "$PGDATA" /var/run/postgresql \! -user postgres -exec chown postgres '{}' +
    exec setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
fi

mkdir -p "$PGDATA"
chmod 00700 "$PGDATA" || :

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    user=$(secret POSTGRES_USER)
    user=${user:-postgres}
    db=$(secret POSTGRES_DB)
    db=${db:-$user}
    password=$(secret POSTGRES_PASSWORD)
    method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
    if [ -z "$password" ] && [ "$method" != trust ]; then
        echo "Error: Database is uninitialized and superuser password is not specified." >&2
        exit 1
    fi
    # shellcheck disable=SC2086  # several arguments in one variable, as in the official image
    initdb --username="$user" --pwfile=<(printf '%s\n' "$password") ${POSTGRES_INITDB_ARGS:-}
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -p 5432" -w start
    export PGPASSWORD="$password"
    if [ "$db" != postgres ]; then
        psql -v ON_ERROR_STOP=1 --username "$user" --dbname postgres --set db="$db" <<<'CREATE DATABASE :"db";'
    fi
    for file in /docker-entrypoint-initdb.d/*; do
        case "$file" in
        *.sh) bash "$file" ;;
        *.sql) psql -v ON_ERROR_STOP=1 --username "$user" --dbname "$db" --file "$file" ;;
        esac
    done
    unset PGPASSWORD
    pg_ctl -D "$PGDATA" -m fast -w stop
    echo "PostgreSQL init process complete; ready for start up."
fi

exec "$@"
