"""SQL on a machine."""

from __future__ import annotations

from tests.e2e.harness import Machine


def sql(machine: Machine, statement: str) -> list[str]:
    """Run a statement; returns a line for each row."""
    psql = 'psql --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --quiet --tuples-only --no-align'
    command = f"docker exec -i dagster-postgres sh -c '{psql} --set ON_ERROR_STOP=1' <<'SQL'\n{statement};\nSQL"
    return machine.ssh(command).splitlines()
