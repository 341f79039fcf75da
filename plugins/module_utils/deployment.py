# SPDX-License-Identifier: Apache-2.0
"""A release of the user code, from the start of its container to the retirement of older ones.

The order of the steps is what makes a kill harmless. Until workspace.yaml is replaced, nothing that serves has been
touched; from then on the new release has passed its gate, and whoever comes next (this module, a restarted webserver,
the daemon's own refresh) moves to it. Every run therefore begins by finishing what a killed one left.
"""

from __future__ import annotations

import contextlib
import time

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    code_server,
    daemon,
    deployment_cutover,
    deployment_housekeeping,
    deployment_recovery,
    docker_api,
    docker_cli,
    engine_api,
    graphql,
    image_pull,
    image_reference,
    releases,
    workspace,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.deployment_task import (
    CLEAN,
    DEPLOY,
    FAILURES,
    ROLLBACK,
    DeploymentError,
    Options,
    Outcome,
    Task,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import guard_disks

__all__ = ["Deployment", "DeploymentError", "Options", "Outcome"]


class Deployment(Task):
    """The operations: deploy, rollback, clean, and taking back a release that proved bad after its play."""

    def deploy(self, reference: str) -> Outcome:
        """Bring the image to traffic; nothing happens if it serves already (unless ``force``).

        Raises:
            DeploymentError, releases.LockedError, docker_cli.DockerError
        """
        self.outcome = Outcome(DEPLOY)
        reference = self.outcome.reference = self._brought(reference)
        with self.running(reference):
            image = code_server.image(reference)
            self.outcome.identity = image.id
            well = deployment_recovery.finish_interrupted(self)
            self.outcome.identity, self.outcome.reference = image.id, reference
            serving = self._serving_container()
            wanted = self.settings.config_hash()
            there = code_server.containers()
            if well and serving and serving.running and not self.options.force and self._same(serving, image, wanted):
                self.outcome.release = serving.release
                self.outcome.identity = serving.identity
                deployment_housekeeping.remove_candidates(self, there, keep=None)
                return self.outcome
            # What serves badly is no help, even if it is the same image: a new container may be.
            ready = self._reusable(there, image, wanted) if well and not self.options.force else None
            there = deployment_housekeeping.remove_candidates(self, there, keep=ready.release if ready else None)
            if ready:
                release = self.store.load(ready.release) or self._record(ready.release, image)
            else:
                self._refuse_a_full_disk()
                release = self._record(self._new_name(there, image), image)
                self._start(release, there)
            self._activate(release, fresh=ready is None)
        return self.outcome

    def rollback(self, target: str | None = None) -> Outcome:
        """Back to ``target``, or to the release that served before the one that serves now.

        The target is verified before anything is touched: its container runs, or its image is on the machine.

        Raises:
            DeploymentError, releases.LockedError, docker_cli.DockerError
        """
        self.outcome = Outcome(ROLLBACK)
        with self.running(target or "the previous release"):
            asked_of = self.serving_release()
            deployment_recovery.finish_interrupted(self)
            if target is None and self.outcome.previous and self.outcome.previous == asked_of:
                # What served was broken, and the way back has just been gone: a second step would be one too many.
                self.outcome.result = "ok"
                return self.outcome
            release = self.rollback_target(target)
            self.outcome.identity, self.outcome.reference = release.identity, release.reference
            leaving = self.serving_release()
            running = code_server.container(release.container)
            if leaving == release.release and running and running.running:
                self.outcome.release = release.release
                return self.outcome
            fresh = not (running and running.running)
            if fresh:
                self._start(release, code_server.containers())
            self._activate(release, fresh=fresh, leaving=leaving)
        return self.outcome

    def clean(self) -> Outcome:
        """Retire what nobody needs any more, and nothing else."""
        self.outcome = Outcome(CLEAN)
        with self.running("", audit=False):
            deployment_recovery.finish_interrupted(self)
            deployment_housekeeping.remove_candidates(self, code_server.containers(), keep=None)
            deployment_housekeeping.retire(self)
        return self.outcome

    def take_back(self, release: str, why: str) -> bool:
        """Undo the cutover to ``release`` if it serves still; True if that was done.

        The release before it is started again where it does not run. Where there is no way back, the audit log and
        ``failure.txt`` say so: nobody watches a play by then.
        """
        self.outcome = Outcome(ROLLBACK, release=release)
        with self.running(release):
            if self.serving_release() != release:
                return False
            failed = self.store.load(release) or releases.Release(release, "")
            said = code_server.logs(failed.container, self.options.log_lines)
            try:
                before = releases.before(release, self.store.all())
                if before is None:
                    raise DeploymentError("no release before it is retained")
                self.phase("gate")
                deployment_recovery.bring_up(self, before)
                deployment_cutover.back_to(self, before.container, failed)
                self.outcome.changed = True
                self.outcome.previous, self.outcome.release = release, before.release
                self.outcome.identity, self.outcome.reference = before.identity, before.reference
                self.outcome.failure = f"{release} was taken back: {why}"
            except (*FAILURES, DeploymentError) as error:
                self.outcome.result = "failed"
                self.outcome.failure = f"{release} could not be taken back, although {why}: {error}"
            with contextlib.suppress(OSError):
                self.store.note(release, f"{self.outcome.failure}\nLast log lines:\n{said}")
        return self.outcome.changed

    def rollback_target(self, target: str | None) -> releases.Release:
        """The release to go back to, verified.

        Raises:
            DeploymentError: there is none, or neither its container nor its image is on the machine any more.
        """
        known = self.store.all()
        serving = self.serving_release()
        names = ", ".join(each.release for each in known if each.served and each.release != serving) or "none"
        if target:
            release = self.store.load(target)
            if release is None:
                raise DeploymentError(
                    f"dagster_core_release: found {target!r}; expected one of the retained releases: {names}."
                    " Nothing was touched."
                )
        else:
            release = releases.before(serving, known)
            if release is None:
                raise DeploymentError(
                    f"there is no release to go back to: {serving or 'nothing'} serves, and none before it is retained"
                    f" (retained: {names}). Nothing was touched."
                )
        running = code_server.container(release.container)
        if not (running and running.running) and docker_cli.inspect("image", release.identity) is None:
            raise DeploymentError(
                f"release {release.release} cannot be started: its image {release.identity} is not on this machine."
                f" Retained: {names}. Nothing was touched."
            )
        return release

    def would_change(self, reference: str) -> bool:
        """For check mode: would ``deploy`` do something? True where that cannot be known (nothing is installed yet)."""
        try:
            image = code_server.image(reference)
            serving = self._serving_container()
        except (docker_cli.DockerError, code_server.CandidateError, workspace.WorkspaceError):
            return True
        if not serving or not serving.running or self.options.force:
            return True
        with contextlib.suppress(graphql.GraphQLError):
            shown = self.webserver.locations().get(self.settings.location)
            if not (shown and shown.loaded and shown.host == serving.name):
                return True
        return not self._same(serving, image, self.settings.config_hash())

    def _serving_container(self) -> code_server.Container | None:
        host = self.intended_host()
        return code_server.container(host) if releases.release_of(host) and host else None

    @staticmethod
    def _same(found: code_server.Container, image: code_server.Image, config: str) -> bool:
        return found.image_id == image.id and found.config == config

    def _brought(self, reference: str) -> str:
        """Have the image on the machine, from its registry if the options say so; returns the name that cannot move.

        Before the lock: a pull takes its time, and what it brings is nobody's yet.

        Raises:
            DeploymentError, docker_cli.DockerError
        """
        if self.options.pull == docker_cli.NEVER:
            return reference
        try:
            parts = image_reference.split_reference(reference)
        except ValueError as error:
            raise DeploymentError(f"image: {error}") from error
        found = docker_cli.inspect("image", reference)
        if found is None or not image_pull.settles(found, parts, self.options.pull):
            self._refuse_a_full_disk()
            started = time.monotonic()
            try:
                found = image_pull.fetch(reference, parts, found, self.options.pull_timeout)
            except image_pull.PullError as error:
                raise DeploymentError(str(error)) from error
            self.outcome.phases["pull"] = round(time.monotonic() - started, 3)
        return docker_cli.repository_digest(found, reference) or reference

    def _reusable(
        self, there: list[code_server.Container], image: code_server.Image, config: str
    ) -> code_server.Container | None:
        """A running container of the same image and settings: the release kept warm, or one whose deploy was killed."""
        found = [each for each in there if each.running and self._same(each, image, config)]
        return found[-1] if found else None

    def _new_name(self, there: list[code_server.Container], image: code_server.Image) -> str:
        """A name that is free: two releases of one image in the same second differ by a second."""
        moment = time.time()
        taken = {each.release for each in self.store.all()} | {each.release for each in there}
        while (name := releases.release_name(image.id, moment)) in taken:
            moment += 1
        return name

    def _record(self, name: str, image: code_server.Image) -> releases.Release:
        release = releases.Release(
            release=name,
            identity=image.id,
            reference=image.reference,
            digest=image.digest,
            created=releases.now(),
            who=self.options.who,
            git_sha=self.options.git_sha,
        )
        try:
            self.store.save(release)
        except OSError:
            self.store.delete(name)
            raise
        return release

    def _refuse_a_full_disk(self) -> None:
        found = "" if self.options.ignore_disk else guard_disks.refusal()
        if found:
            raise DeploymentError(
                f"{found}; or set dagster_ignore_disk. Nothing was touched."
                f"\n{deployment_cutover.goes_on(self, self.intended_host())}"
            )

    def _start(self, release: releases.Release, there: list[code_server.Container]) -> None:
        deployment_housekeeping.make_room(self, len(there))
        self.phase("start")
        try:
            code_server.start(release, self.settings)
            # A name of its own keeps the image when somebody prunes images without a tag.
            name = {"repo": releases.OWN_REPOSITORY, "tag": release.release}
            docker_api.ask("POST", f"/images/{engine_api.part(release.identity)}/tag", query=name)
        except FAILURES as error:
            deployment_housekeeping.discard(self, release)
            raise DeploymentError(f"{error}\n{deployment_cutover.goes_on(self, self.intended_host())}") from error

    def _activate(self, release: releases.Release, fresh: bool, leaving: str | None = None) -> None:
        """Gate, cutover, reload, assert, soak, retire. What served goes on serving if any of them fails."""
        before = self.intended_host()
        self.outcome.previous = releases.release_of(before) or ""
        self.outcome.release, self.outcome.identity = release.release, release.identity
        self.outcome.digest = release.digest
        try:
            self.phase("gate")
            # While the server starts, and before anything is switched: nobody has to wait for it.
            self.outcome.runs_before = self.runs_in_flight()
            code_server.gate(release.container, self.settings, self.options.start_timeout, self.options.log_lines)
            code_server.keep_running(release.container)
        except FAILURES as error:
            if fresh and before != release.container:
                deployment_housekeeping.discard(self, release)
            raise DeploymentError(f"{error}\n{deployment_cutover.goes_on(self, before)}") from error
        unmarked = self.store.load(release.release)
        try:
            # Before the switch: a release that may have had traffic is never taken for a mere candidate.
            self.mark_served(release.release)
            deployment_cutover.switch(self, release.container)
            deployment_cutover.prove(self, release)
            if self.options.soak_seconds > 0:
                self.phase("soak")
                deployment_cutover.soak(self, release)
        except FAILURES as error:
            deployment_cutover.undo(self, before, release, error, unmarked if fresh else None)
        self.outcome.changed = True
        self.outcome.result = "ok"
        try:
            self._after(release, before, leaving)
        except FAILURES as error:
            raise DeploymentError(
                f"release {release.release} serves, but what comes after its cutover failed: {error}"
            ) from error

    def _after(self, release: releases.Release, before: str | None, leaving: str | None) -> None:
        """What follows a cutover that is done."""
        if leaving and leaving != release.release:
            self.mark_rolled_back(leaving)
        self.outcome.runs_after = self.runs_in_flight()
        if before is None:
            # The daemon would find the first release within a minute. Nobody uses it yet, so it may as well restart.
            self.phase("daemon")
            docker_cli.run(["restart", self.options.daemon_container], check=False, timeout=120)
        if self.options.wait_for_daemon:
            self.phase("daemon")
            daemon.wait_until_moved(self, release)
        self.phase("retire")
        deployment_housekeeping.retire(self)
