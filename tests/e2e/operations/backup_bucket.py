"""A bucket of the lab's Google that machines of ``lab up`` reach as one on Compute Engine reaches Google's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import docker

from lab import machine as lab_machine
from lab.google import Google
from lab.google.metadata import MetadataServer
from lab.google.metadata_source import StateSource
from lab.google.storage import content_path, objects
from tests.e2e.harness import Machine

PROJECT = "example-backup"
ACCOUNT = f"machine@{PROJECT}.iam.gserviceaccount.com"
BUCKET = "example-backup-dagster"
NAMES = "storage.googleapis.com oauth2.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class Vault:
    """The bucket, and what a test does to it behind the machines' backs."""

    def __init__(self, google: Google, metadata: MetadataServer, address: str) -> None:
        self.google = google
        self.address = address
        self.metadata = metadata

    def objects(self) -> list[str]:
        """The names of all objects."""
        return sorted(objects(self.google, BUCKET))

    def content(self, name: str) -> Path:
        """The file with an object's content."""
        return content_path(self.google, objects(self.google, BUCKET)[name])

    def admit(self, machine: Machine) -> None:
        """Make a machine one of Google's, as far as backups need it: metadata server, API, certificate."""
        address = machine.ssh(f"ip -o route get {self.address} | grep -o 'src [^ ]*'").split()[1]
        self.google.state.put(
            f"compute/projects/{PROJECT}/zones/europe-west3-c/instances/{machine.name}",
            {
                "kind": "compute#instance", "id": "1", "name": machine.name,
                "networkInterfaces": [{"networkIP": address}],
                "serviceAccounts": [{"email": ACCOUNT, "scopes": [SCOPE]}],
                "zone": f"projects/{PROJECT}/zones/europe-west3-c", "machineType": "zones/z/machineTypes/e2-medium",
                "selfLink": "https://www.googleapis.com/compute/v1/projects/"
                f"{PROJECT}/zones/europe-west3-c/instances/{machine.name}",
            },
        )  # fmt: skip
        certificate = self.google.authority.read_text()
        api = f"{self.address}:{self.google.port}"
        machine.ssh(
            "mkdir -p /etc/lab-google\n"
            f"printf 'LAB_METADATA={self.metadata.address}\\nLAB_API={api}\\n' > /etc/lab-google/environment\n"
            "ip address replace 169.254.169.254/32 dev lo; ip address replace 199.36.153.8/32 dev lo\n"
            f"cat > /usr/local/share/ca-certificates/lab-google.crt <<'E'\n{certificate}\nE\n"
            "update-ca-certificates --fresh >/dev/null 2>&1\n"
            "systemctl restart lab-metadata.socket lab-api.socket\n"
            "systemctl stop lab-metadata.service lab-api.service 2>/dev/null\n"
            "grep -q googleapis /etc/hosts ||"
            f" printf '199.36.153.8 {NAMES}\\n169.254.169.254 metadata.google.internal\\n' >> /etc/hosts"
        )

    def dismiss(self, machine: Machine) -> None:
        """A machine of ``lab up`` again."""
        machine.ssh(
            "systemctl stop lab-metadata.socket lab-api.socket lab-metadata.service lab-api.service\n"
            "rm -rf /etc/lab-google /usr/local/share/ca-certificates/lab-google.crt\n"
            "update-ca-certificates --fresh >/dev/null 2>&1\n"
            "ip address del 169.254.169.254/32 dev lo; ip address del 199.36.153.8/32 dev lo\n"
            # Docker mounts this file: it can be written to, but not replaced.
            "hosts=$(grep -v 'googleapis\\|metadata.google' /etc/hosts); echo \"$hosts\" > /etc/hosts",
            check=False,
        )


@contextlib.contextmanager
def vault() -> Iterator[Vault]:
    """A Google with a project, a bucket in it, and an account that may use the bucket's objects and nothing else."""
    address = lab_machine.gateway(docker.from_env())
    google = Google(host=address).start()
    metadata = MetadataServer(StateSource(google), address).start()
    try:
        google.seed_project(PROJECT)
        google.call("iam.projects.serviceAccounts.create", {"name": f"projects/{PROJECT}"}, {"accountId": "machine"})
        google.call("storage.buckets.insert", {"project": PROJECT}, {"name": BUCKET, "location": "europe-west1"})
        binding = {"role": "roles/storage.objectUser", "members": [f"serviceAccount:{ACCOUNT}"]}
        google.call("storage.buckets.setIamPolicy", {"bucket": BUCKET}, {"bindings": [binding]})
        yield Vault(google, metadata, address)
        assert google.violations == []
    finally:
        metadata.stop()
        google.stop()
