# SPDX-License-Identifier: Apache-2.0
"""One psql that stays, for work in many short transactions.

A command of its own for each batch would cost more than the batch, and temporary tables live as long as a session.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import select
import subprocess
import tempfile
import time
from types import TracebackType
from typing import IO, cast

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, database

_PSQL = (
    'exec psql --no-psqlrc --username="$POSTGRES_USER" --dbname="${1:-$POSTGRES_DB}"'
    " --no-password --tuples-only --csv --quiet --file=-"
)
# Nothing that Dagster stores holds this, and psql prints it after each statement.
_END = "end-of-answer-4f1c9d"
# Refusals that pass: somebody held a lock, the server was busy, two transactions waited for each other.
PASSING = ("55P03", "57014", "40P01")


class RefusedError(database.DatabaseError):
    """PostgreSQL refused a statement; the session goes on."""

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state


class Session:
    """A psql in PostgreSQL's container; every statement is a transaction of its own.

    Args:
        statement_timeout: seconds after which PostgreSQL ends a statement.
        lock_timeout: seconds that a statement may wait for a lock: who waits longer makes others wait behind him.
        name: another database than the container's POSTGRES_DB.
        container: another container than the stack's.
    """

    def __init__(
        self, statement_timeout: float = 60, lock_timeout: float = 2, name: str = "", container: str = ""
    ) -> None:
        self.statement_timeout = statement_timeout
        # A refusal comes with the answer, too; here it would come a moment before or after it.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the session
        target = container or config.stack().postgres_container
        options = (
            f"-c statement_timeout={round(statement_timeout * 1000)} -c lock_timeout={round(lock_timeout * 1000)}"
            " -c timezone=UTC -c client_min_messages=warning -c application_name=dagster-gce-upkeep"
            # A client that died must not leave a transaction open: it would hold back every vacuum.
            " -c idle_in_transaction_session_timeout=60000"
        )
        command = [docker_cli.DOCKER, "exec", "-i", "-e", "PGOPTIONS", target, "sh", "-c", _PSQL, "psql", name]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env={**os.environ, "LC_ALL": "C.UTF-8", "PGOPTIONS": options},
            )
        except FileNotFoundError as error:
            raise database.DatabaseError("the docker command is not installed; run site.yml") from error
        # Pipes, as asked for: the library's types cannot tell.
        self._input = cast(IO[bytes], self._process.stdin)
        self._output = cast(IO[bytes], self._process.stdout)
        self._read = b""
        self._target = target

    def __enter__(self) -> Session:
        """The session itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End psql; what it was about to do is rolled back."""
        with contextlib.suppress(OSError):
            self._input.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()
        self._said.close()

    def query(self, sql: str, timeout: float | None = None) -> list[list[str]]:
        """The rows of one statement as text, NULL as an empty text.

        Args:
            sql: one statement without its semicolon.
            timeout: seconds for this statement, where they are not the session's.

        Raises:
            RefusedError: PostgreSQL refused it.
            database.DatabaseError: PostgreSQL is gone.
        """
        if timeout is not None:
            self._ask(f"SET statement_timeout = {round(timeout * 1000)}", 10)
        try:
            return self._ask(sql, timeout or self.statement_timeout)
        finally:
            if timeout is not None:
                # A connection that died has said so already.
                with contextlib.suppress(database.DatabaseError):
                    self._ask(f"SET statement_timeout = {round(self.statement_timeout * 1000)}", 10)

    def number(self, sql: str, timeout: float | None = None) -> int:
        """The only value of a query, as a number; 0 where it is NULL."""
        rows = self.query(sql, timeout)
        return int(float(rows[0][0])) if rows and rows[0][0] else 0

    def _ask(self, sql: str, timeout: float) -> list[list[str]]:
        asked = f"{sql}\n;\n\\echo {_END} :SQLSTATE :LAST_ERROR_MESSAGE\n\\echo {_END}\n"
        try:
            self._input.write(asked.encode())
            self._input.flush()
        except OSError as error:
            raise self._gone() from error
        answer = self._until_end(time.monotonic() + timeout + 30)
        rows, _, tail = answer.partition(f"{_END} ")
        state, _, message = tail.partition(" ")
        if state.strip() != "00000":
            raise RefusedError(f"PostgreSQL: {message.strip()} ({state.strip()})", state.strip())
        return list(csv.reader(io.StringIO(rows)))

    def _until_end(self, deadline: float) -> str:
        mark = f"\n{_END}\n".encode()
        while mark not in self._read:
            ready, _, _ = select.select([self._output], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self._process.kill()
                raise database.DatabaseError(f"PostgreSQL in {self._target} does not answer any more")
            got = os.read(self._output.fileno(), 1 << 16)
            if not got:
                raise self._gone()
            self._read += got
        answer, _, self._read = self._read.partition(mark)
        return answer.decode("utf-8", "replace")

    def _gone(self) -> database.DatabaseError:
        self._process.kill()
        self._process.wait()
        self._said.seek(0)
        said = docker_cli.last_lines(self._said.read().decode("utf-8", "replace"), 3) or "the connection ended"
        return database.DatabaseError(f"PostgreSQL in {self._target}: {said}")
