# SPDX-License-Identifier: Apache-2.0
"""A new password of the database, while everything runs.

PostgreSQL knows one password of a role, and connections that are open do not care. New ones take the password from a
file (`database_password`) at that very moment. So the change is: ALTER ROLE in a transaction, replace the files,
COMMIT. Between the rename and the commit lie milliseconds, in which a connection is refused and Dagster tries again
(dagster_postgres does so five times, after 0.2 s and more).

Before anything is changed, the new password is written to a file of its own: whatever a killed rotation left, the next
one ends with that password in the database and in the files.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import hmac
import os
import secrets
import string
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    database_password,
    docker_cli,
    dotenv,
    files,
)

NAME = "POSTGRES_PASSWORD"
LENGTH = 40
ROOT = files.Owner(0, 0, 0o600)
_ALPHABET = string.ascii_letters + string.digits
_READY = "ready to commit"
# Not over 127.0.0.1 or the socket, where PostgreSQL's image asks for no password. PGHOST: a server outside.
_LOGIN = 'exec psql --no-psqlrc -w -h "${PGHOST:-$(hostname -i | cut -d" " -f1)}" -U "$0" -d "$1" -Atc "select 1"'


# Who is no superuser may not set these.
_QUIET = r"""select set_config(name, value, false) from (values ('log_statement', 'none'),
('log_min_duration_statement', '-1'), ('log_min_error_statement', 'panic')) as quiet (name, value)
where (select rolsuper from pg_roles where rolname = current_user) \g /dev/null"""


class RotationError(Exception):
    """The password could not be changed; the message says what holds now."""


@dataclass(frozen=True)
class Place:
    """Where the password stands."""

    root: str = "/opt/dagster"
    container: str = "dagster-postgres"
    uid: int = 10001
    seconds: float = 30

    @property
    def env(self) -> str:
        """The file that operators and tools read."""
        return os.path.join(self.root, ".env")

    @property
    def pending(self) -> str:
        """The new password, from the moment of the decision until everything has it."""
        return os.path.join(self.root, ".env.rotation")

    @property
    def folder(self) -> str:
        """The files that containers read."""
        return os.path.join(self.root, "dagster_home", "database")


@dataclass(frozen=True)
class Outcome:
    """What came of it. ``resumed``: an interrupted rotation was ended."""

    changed: bool
    resumed: bool = False


def generate() -> str:
    """A new password: letters and digits, 238 bits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(LENGTH))


def scram(password: str) -> str:
    """What PostgreSQL keeps of a password, and takes in its place: SCRAM-SHA-256 (RFC 5803).

    Only of ASCII: anything else it would bring into a normal form first (SASLprep).
    """
    salt, rounds = secrets.token_bytes(16), 4096
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, rounds)
    client, server = (hmac.digest(salted, name, "sha256") for name in (b"Client Key", b"Server Key"))
    encoded = [base64.b64encode(each).decode() for each in (salt, hashlib.sha256(client).digest(), server)]
    return f"SCRAM-SHA-256${rounds}:{encoded[0]}${encoded[1]}:{encoded[2]}"


class Rotation:
    """One rotation; ``on_phase`` is told each phase when it begins."""

    def __init__(self, place: Place, on_phase: Callable[[str], None] = lambda name: None) -> None:
        self.place = place
        self.phase = on_phase

    def would_change(self, given: str) -> bool:
        """Whether `rotate` would do something."""
        return not given or os.path.exists(self.place.pending) or given != self._environment().get(NAME)

    def rotate(self, given: str = "") -> Outcome:
        """Change the password to ``given``, or to a new one made here.

        Raises:
            RotationError
        """
        with self._locked():
            environment = self._environment()
            old = environment.get(NAME, "")
            waiting = files.read(self.place.pending)
            new = given or (waiting.decode() if waiting else generate())
            if waiting is None and given == old:
                return Outcome(False)
            try:
                dotenv.quote(NAME, new)
                files.replace(self.place.pending, new.encode(), ROOT)
            except dotenv.DotenvError as error:
                raise RotationError(f"{error}. Nothing was changed") from error
            except OSError as error:
                raise RotationError(f"{self.place.pending}: {error.strerror}. Nothing was changed") from error
            self.phase("pending")
            # What a killed rotation left may fit the database or not: it is not what to go back to.
            self._change(environment, new, before=old if waiting is None else None)
            self.phase("changed")
            self._prove(environment, new)
            os.unlink(self.place.pending)
            files.sync_folder(self.place.root)
            return Outcome(True, resumed=waiting is not None)

    def _environment(self) -> dict[str, str]:
        try:
            found = dotenv.parse((files.read(self.place.env) or b"").decode())
        except (dotenv.DotenvError, UnicodeDecodeError, OSError) as error:
            raise RotationError(f"{self.place.env} cannot be read: {error}. Nothing was changed") from error
        for name in ("POSTGRES_USER", "POSTGRES_DB", NAME):
            if not found.get(name):
                raise RotationError(
                    f"{self.place.env}: found no {name}; expected the file that the role dagster_home writes: run "
                    "site.yml first. Nothing was changed"
                )
        return found

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        path = os.path.join(self.place.root, ".rotation.lock")
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise RotationError(f"{path}: {error.strerror}; expected site.yml to have been run") from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RotationError("another rotation is running on this machine. Nothing was changed") from error
            yield
        finally:
            os.close(handle)

    def _write(self, environment: dict[str, str], password: str) -> None:
        """Every file with the password, those of the containers first."""
        database_password.write(self.place.folder, password, self.place.uid)
        self.phase("files")
        content = dotenv.render({**environment, NAME: password}, dotenv.HEADER).encode()
        files.replace(self.place.env, content, ROOT)

    def _change(self, environment: dict[str, str], new: str, before: str | None) -> None:
        """ALTER ROLE, the files, COMMIT."""
        command = ["docker", "exec", "-i", self.place.container, "psql", "--no-psqlrc", "--quiet", "-At"]
        command += ["-v", "ON_ERROR_STOP=1", "-U", environment["POSTGRES_USER"], "-d", environment["POSTGRES_DB"]]
        user = environment["POSTGRES_USER"].replace('"', '""')
        milliseconds = int(self.place.seconds * 1000)
        secret = scram(new) if new.isascii() else new
        # A password that is no ASCII stands in the statement as it is: it must reach no log, not even when it fails.
        statements = (
            f"{_QUIET}\nset lock_timeout = {milliseconds}; set statement_timeout = {milliseconds};\n"
            "set password_encryption = 'scram-sha-256'; set standard_conforming_strings = on;\n"
            "begin;\n"
            f"alter role \"{user}\" password '{secret.replace(chr(39), chr(39) * 2)}';\n"
            f"select '{_READY}';\n"
        )
        try:
            psql = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
            )  # fmt: skip
        except FileNotFoundError as error:
            self._forget(before)
            raise RotationError("the docker command is not installed. Nothing was changed") from error
        with contextlib.suppress(BrokenPipeError):
            if psql.stdin is not None:
                psql.stdin.write(statements)
                psql.stdin.flush()
        # An engine that hangs would keep the transaction, and this, for ever.
        patience = threading.Timer(self.place.seconds + 10, psql.kill)
        patience.start()
        try:
            with psql:
                self._commit(psql, environment, new, before)
        finally:
            patience.cancel()

    def _commit(self, psql: subprocess.Popen[str], environment: dict[str, str], new: str, before: str | None) -> None:
        """What follows once psql has been given the statements."""
        if psql.stdin is None or psql.stdout is None or psql.stderr is None:
            raise RotationError("psql has no streams")
        said = psql.stdout.readline().strip()
        if said != _READY:
            errors = psql.stderr.read()
            self._forget(before)
            raise RotationError(f"PostgreSQL refused: {_plain(errors, new) or 'no answer'}. Nothing was changed")
        self.phase("altered")
        try:
            self._write(environment, new)
        except OSError as error:
            psql.kill()
            self._back(environment, before)
            raise RotationError(f"{error.filename}: {error.strerror}. The old password holds") from error
        self.phase("commit")
        with contextlib.suppress(BrokenPipeError):
            psql.stdin.write("commit;\n")
            psql.stdin.close()
        errors = psql.stderr.read()
        if psql.wait():
            self._back(environment, before)
            raise RotationError(f"PostgreSQL did not commit: {_plain(errors, new)}. The old password holds")

    def _back(self, environment: dict[str, str], before: str | None) -> None:
        """The files as they were, and no rotation that waits."""
        if before is not None:
            with contextlib.suppress(OSError):
                self._write(environment, before)
        self._forget(before)

    def _forget(self, before: str | None) -> None:
        if before is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.place.pending)

    def _prove(self, environment: dict[str, str], password: str) -> None:
        """Log in as a container would."""
        command = ["exec", "-e", "PGPASSWORD", self.place.container, "sh", "-c", _LOGIN]
        try:
            done = docker_cli.run(
                [*command, environment["POSTGRES_USER"], environment["POSTGRES_DB"]],
                env={"PGPASSWORD": password},
                check=False,
                timeout=self.place.seconds,
            )
        except docker_cli.DockerError as error:
            raise RotationError(f"the new password is set, but nobody could log in with it: {error}") from error
        if not done.ok:
            raise RotationError(
                f"the new password is set, but a login with it fails: {_plain(done.stderr, password)}. Run this again"
            )


def _plain(text: str, password: str) -> str:
    """What psql said, without the password."""
    return docker_cli.last_lines(text, 3).replace(password, "(hidden)")
