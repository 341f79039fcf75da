"""Machines of the lab: systemd and sshd in a privileged container, reached over real SSH with verified host keys."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

import docker
import docker.errors
from docker.models.containers import Container
from docker.models.networks import Network

from . import images
from .shell import LabError, run, say, succeeds, wait_until

LABEL = images.LABEL
NETWORK = "dagster-gce-lab"
# Compute Engine's automatic networks lie in 10.128.0.0/9 too; inside a machine Docker's own default ranges stay free.
SUBNET = "10.128.0.0/20"
REGISTRY_NAME = "dagster-gce-lab-registry"
REGISTRY_HOST = "registry.lab"
REGISTRY_ADDRESS = "10.128.0.5"
REGISTRY_DATA = "/var/lib/docker-registry"
USER = "ansible"
# A folder that all machines share, as a file share of Filestore's is mounted: dagster_storage_path is a folder in it.
SHARED = "/mnt/shared"
SHARED_VOLUME = "dagster-gce-lab-shared"
STATE = Path(__file__).resolve().parent.parent / ".lab"
# The SSH configuration that the playbooks write for the demo's machine.
PROVISIONED = STATE.parent / "inventory" / "lab" / ".ssh" / "ssh_config"
NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
# A file system of its own for each: overlay2 does not work on top of the container's overlay.
DISKS = ["/var/lib/docker", "/var/lib/containerd"]
# What is one machine's own and may not be another's. systemd and sshd make theirs anew at the next boot.
_FORGET = (
    "systemctl stop docker.socket docker.service containerd.service 2>/dev/null; "
    "rm -f /etc/ssh/ssh_host_* /var/lib/docker/engine-id && : >/etc/machine-id"
)


def container_name(name: str) -> str:
    """The container of the machine ``name``; its prefix keeps the lab apart from what else runs in the engine."""
    return f"dagster-gce-lab-{name}"


def check_name(name: str) -> str:
    """Compute Engine's rule for names of instances. Raises LabError."""
    if not NAME.fullmatch(name) or container_name(name) == REGISTRY_NAME:
        raise LabError(f"machine name: found {name!r}; expected a name that Compute Engine takes: {NAME.pattern}")
    return name


def up(client: docker.DockerClient, name: str, image: str = images.MACHINE, like: str = "") -> Container:
    """Have the machine ``name`` running with this checkout's key in it; makes what is missing, keeps what is there.

    :param like: a new machine begins with the disk of this one, where keep() has kept it.
    """
    check_name(name)
    network(client)
    machine = _find(client, name)
    if machine is None:
        like = like if like and client.images.list(_kept(like)) else ""
        say(f"starting machine {name}" + (f", with what {like} has" if like else ""))
        machine = _create(client, name, _kept(like) if like else image)
        try:
            if like:
                _copy_disks(client, like, name)
            machine.start()
        except BaseException:
            # Half a disk is none: the same command begins again.
            down(client, name)
            raise
    elif machine.status != "running":
        say(f"machine {name} was off: starting it")
        machine.start()
    _prepare(machine)
    write_ssh_config(client)
    wait_until(lambda: succeeds(*ssh_command(name), "true", timeout=15), 60, f"an SSH session on machine {name}")
    return machine


def down(client: docker.DockerClient, name: str) -> None:
    """Remove the machine ``name`` and its disk."""
    machine = _find(client, check_name(name))
    if machine is not None:
        say(f"removing machine {name}")
        close_connection(name)
        machine.remove(force=True)
    for disk in client.volumes.list(filters={"label": f"{LABEL}.machine={name}"}):
        disk.remove(force=True)
    if client.images.list(_kept(name)):
        # A machine that began with the copy goes on without its name, one that an interrupted run has left too.
        client.images.remove(_kept(name), force=True)
    write_ssh_config(client)


def keep(client: docker.DockerClient, name: str) -> None:
    """Stop the machine ``name``; others may begin with a copy of its disk until it is removed. Raises LabError."""
    machine = _find(client, check_name(name))
    if machine is None or machine.status != "running":
        raise LabError(f"machine {name}: found {machine.status if machine else 'none'}; expected one that runs")
    execute(machine, _FORGET)
    close_connection(name)
    machine.stop(timeout=30)
    repository, tag = _kept(name).rsplit(":", 1)
    machine.commit(repository, tag, pause=False)
    write_ssh_config(client)


def _kept(name: str) -> str:
    """The image of what a kept machine has outside its DISKS."""
    return f"dagster-gce-lab/kept-{name}:1"


def _copy_disks(client: docker.DockerClient, source: str, target: str) -> None:
    mounts = []
    for number, path in enumerate(DISKS):
        mounts.append(docker.types.Mount(f"/from/{number}", _disk(container_name(source), path), read_only=True))
        mounts.append(docker.types.Mount(f"/to/{number}", _disk(container_name(target), path)))
    # The engine's layers have attributes that only a privileged process may write.
    client.containers.run(
        images.MACHINE, ["cp", "--archive", "/from/.", "/to/"], mounts=mounts, privileged=True, remove=True,
        network_mode="none",
    )  # fmt: skip


def _disk(container: str, path: str) -> str:
    """The volume of a machine that is mounted at ``path``."""
    return f"{container}{path.replace('/', '-')}"


def every(client: docker.DockerClient) -> list[str]:
    """The names of all machines, running or not."""
    found = client.containers.list(all=True, filters={"label": f"{LABEL}.machine"})
    return sorted(str(machine.labels[f"{LABEL}.machine"]) for machine in found)


def any_left(client: docker.DockerClient) -> bool:
    """Whether there is any machine, be it started here or by a Google of the lab's, in this checkout or another one."""
    return bool(client.containers.list(all=True, filters={"label": f"{LABEL}=machine"}))


def network(client: docker.DockerClient) -> Network:
    """The network that machines and registry share."""
    found = client.networks.list(names=[f"^{NETWORK}$"])
    if found:
        return found[0]
    pool = docker.types.IPAMPool(subnet=SUBNET, iprange="10.128.1.0/24", gateway="10.128.0.1")
    return client.networks.create(
        NETWORK, driver="bridge", ipam=docker.types.IPAMConfig(pool_configs=[pool]), labels={LABEL: "network"}
    )


def gateway(client: docker.DockerClient) -> str:
    """This computer's address on the network."""
    found = network(client)
    found.reload()
    address = found.attrs["IPAM"]["Config"][0].get("Gateway")
    if not address:
        # The engine chose one itself, and names it only on the bridge.
        shown = json.loads(run("ip", "-json", "-4", "address", "show", "dev", f"br-{str(found.id)[:12]}"))
        address = shown[0]["addr_info"][0]["local"]
    return str(address)


def registry(client: docker.DockerClient, names: list[str]) -> str:
    """Have the registry running with the images ``names`` in it; returns its address as this computer sees it."""
    network(client)
    try:
        container = client.containers.get(REGISTRY_NAME)
        if container.status != "running":
            container.start()
    except docker.errors.NotFound:
        say("starting the registry")
        container = client.containers.create(
            images.REGISTRY, name=REGISTRY_NAME, hostname=REGISTRY_HOST, labels={LABEL: "registry"},
            ports={"5000/tcp": ("127.0.0.1", free_port())},
            volumes={client.volumes.create(REGISTRY_NAME, labels={LABEL: "registry"}).name: {"bind": REGISTRY_DATA}},
            # The stub wants a count, which Docker refuses together with this name.
            restart_policy={"Name": "unless-stopped"},  # type: ignore[arg-type]
        )  # fmt: skip
        client.networks.get(NETWORK).connect(container, ipv4_address=REGISTRY_ADDRESS, aliases=[REGISTRY_HOST])
        container.start()
    address = registry_address(client)
    wait_until(lambda: succeeds("curl", "--fail", "--silent", f"http://{address}/v2/"), 30, "an answer of the registry")
    for name in names:
        repository, tag = name.rsplit(":", 1)
        copy = f"{address}/library/{repository}"
        client.images.get(name).tag(copy, tag)
        run("docker", "push", "--quiet", f"{copy}:{tag}")
        # Another checkout's command may be doing the same.
        with contextlib.suppress(docker.errors.ImageNotFound):
            client.images.remove(f"{copy}:{tag}", noprune=True)
    return address


def registry_address(client: docker.DockerClient) -> str:
    """The registry's ``127.0.0.1:<port>`` on this computer. Raises LabError where it does not run."""
    try:
        container = client.containers.get(REGISTRY_NAME)
        return f"127.0.0.1:{container.attrs['HostConfig']['PortBindings']['5000/tcp'][0]['HostPort']}"
    except (docker.errors.NotFound, KeyError, IndexError, TypeError):
        raise LabError("the registry does not run: python -m lab up") from None


def remove_shared(client: docker.DockerClient) -> None:
    """Remove registry and network; they serve every machine, so call it when the last one is gone."""
    for container in client.containers.list(all=True, filters={"label": f"{LABEL}=registry"}):
        container.remove(force=True)
    for name in (REGISTRY_NAME, SHARED_VOLUME):
        for volume in client.volumes.list(filters={"name": name}):
            volume.remove(force=True)
    for found in client.networks.list(filters={"label": f"{LABEL}=network"}):
        found.remove()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on. Fixed for a container's life, unlike the engine's choice."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _find(client: docker.DockerClient, name: str) -> Container | None:
    try:
        return client.containers.get(container_name(name))
    except docker.errors.NotFound:
        return None


def _create(client: docker.DockerClient, name: str, image: str) -> Container:
    return create(
        client, container_name(name), name, {f"{LABEL}.machine": name}, DISKS,
        image=image, extra_hosts={REGISTRY_HOST: REGISTRY_ADDRESS},
        ports={"22/tcp": ("127.0.0.1", free_port())},
    )  # fmt: skip


def create(
    client: docker.DockerClient,
    container: str,
    hostname: str,
    labels: dict[str, str],
    disks: list[str],
    image: str = images.MACHINE,
    **options: Any,
) -> Container:
    """Make a machine, off as yet.

    :param disks: folders that get a volume each; the volumes carry ``labels``.
    :param options: more of the engine's own.
    """
    environment = {"container": "docker"}
    if client.info().get("CgroupVersion") == "1":
        # systemd 256 and later boot under the old hierarchy only when asked to.
        environment["SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE"] = "1"
    labels = {LABEL: "machine", **labels}
    mounts = []
    for path in disks:
        name = _disk(container, path)
        # A machine that was killed may have left its disk: a new one begins with an empty one.
        with contextlib.suppress(docker.errors.NotFound):
            client.volumes.get(name).remove(force=True)
        disk = client.volumes.create(name, labels=labels)
        # Docker fills a new volume with what the image has in its place.
        mounts.append(docker.types.Mount(path, disk.name))
    client.volumes.create(SHARED_VOLUME, labels={LABEL: "shared"})
    mounts.append(docker.types.Mount(SHARED, SHARED_VOLUME))
    return client.containers.create(
        image, name=container, hostname=hostname, detach=True, privileged=True, cgroupns="private",
        network=NETWORK, environment=environment, labels=labels, mounts=mounts,
        tmpfs={"/run": "exec,mode=755", "/run/lock": "", "/tmp": "exec,mode=1777"}, **options,
    )  # fmt: skip


def _prepare(machine: Container) -> None:
    """Give a machine a resolver that its own containers can use, and this checkout's key."""
    wait_until(
        lambda: machine.exec_run(["test", "-s", "/etc/ssh/ssh_host_ed25519_key.pub"]).exit_code == 0,
        60, f"the first boot of {machine.name}",
    )  # fmt: skip
    public = key().with_suffix(".pub").read_text().strip()
    script = (
        # Google's images have no user either: there its agent makes those that the metadata names.
        f"id {USER} >/dev/null 2>&1 || useradd --create-home --shell /bin/bash --groups sudo {USER}\n"
        f"(umask 0226; echo '{USER} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/{USER})\n"
        f"install --directory --owner {USER} --group {USER} --mode 0700 ~{USER}/.ssh\n"
        f"keys=~{USER}/.ssh/authorized_keys\n"
        f"grep -qxF '{public}' $keys 2>/dev/null || echo '{public}' >> $keys\n"
        f"chown {USER}:{USER} $keys && chmod 600 $keys\n"
        # The engine's resolver on 127.0.0.11 is out of reach for the containers inside: name the real ones instead.
        f"printf '{resolvers()}' > /etc/resolv.conf\n"
    )
    execute(machine, script)


def execute(machine: Container, script: str) -> str:
    """Run a shell script in a machine, through the engine; returns what it printed. Raises LabError if it fails."""
    status, output = machine.exec_run(["bash", "-c", script])
    text = output.decode(errors="replace") if isinstance(output, bytes) else ""
    if status:
        raise LabError(f"a script failed in {machine.name}: {text}")
    return text


def resolvers() -> str:
    """``nameserver`` lines that work from a container: this computer's, past a resolver on loopback."""
    for path in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        lines = path.read_text().splitlines() if path.exists() else []
        usable = [line for line in lines if re.match(r"nameserver\s+(?!127\.|::1)", line)]
        if usable:
            return "\\n".join(usable) + "\\n"
    raise LabError("found no name server in /etc/resolv.conf that a container can reach")


def key() -> Path:
    """This checkout's SSH key, made when it is first asked for."""
    path = STATE / "id_ed25519"
    if not path.exists():
        STATE.mkdir(mode=0o700, exist_ok=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "dagster-gce-lab", "-f", str(path))
    return path


def ssh_config() -> Path:
    """The OpenSSH client configuration that has a Host for every machine."""
    return STATE / "ssh_config"


def ssh_config_of(name: str) -> Path:
    """The same for one machine: what provisioning has written, where the lab's Google has started it."""
    host = re.compile(rf"^Host {re.escape(name)}$", re.MULTILINE)
    return PROVISIONED if PROVISIONED.exists() and host.search(PROVISIONED.read_text()) else ssh_config()


def ssh_command(name: str) -> list[str]:
    """The start of a command line that runs something on a machine."""
    return ["ssh", "-F", str(ssh_config_of(name)), "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", name]


def write_ssh_config(client: docker.DockerClient) -> None:
    """Write .lab/ssh_config and .lab/known_hosts for the machines that there are.

    The host keys come through the engine, not through the network that they are to secure.
    """
    key()
    config, known = [], []
    for name in every(client):
        machine = client.containers.get(container_name(name))
        bindings = machine.attrs["HostConfig"]["PortBindings"] or {}
        if not bindings.get("22/tcp"):
            continue
        port = bindings["22/tcp"][0]["HostPort"]
        if machine.status == "running":
            known += [f"[127.0.0.1]:{port} {line.rsplit(' ', 1)[0]}" for line in _host_keys(machine)]
        config.append(
            f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  User {USER}\n  IdentityFile {key()}\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {STATE / 'known_hosts'}\n  StrictHostKeyChecking yes\n"
        )
    replace(STATE / "known_hosts", "\n".join(known) + "\n")
    replace(ssh_config(), "# Written by lab/machine.py.\n" + "\n".join(config))


def _host_keys(machine: Container) -> list[str]:
    """The machine's public host keys. On a busy computer an engine may say nothing at first. Raises LabError."""
    for _ in range(5):
        lines = [line for line in execute(machine, "cat /etc/ssh/ssh_host_*_key.pub").splitlines() if line]
        if any(line.startswith("ssh-ed25519 ") for line in lines):
            return lines
        time.sleep(1)
    raise LabError(f"{machine.name}: found no host keys; expected those that its first boot made")


def replace(path: Path, text: str) -> None:
    """Replace a file at once: somebody else may be reading it."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(path)


def tunnel(name: str, local: int, remote: int) -> None:
    """Forward 127.0.0.1:local to 127.0.0.1:remote of a machine, in the background. Raises LabError if it cannot."""
    if tunnel_is_open(name, local):
        return
    control = _control(name, local)
    control.unlink(missing_ok=True)
    if not port_is_free(local):
        raise LabError(f"port {local} of 127.0.0.1 is in use; choose another one: make demo DEMO_PORT=…")
    run(
        *ssh_command(name)[:-1], "-f", "-N", "-M", "-S", control.name, "-o", "ExitOnForwardFailure=yes",
        "-o", "ServerAliveInterval=15", "-L", f"127.0.0.1:{local}:127.0.0.1:{remote}", name, cwd=STATE,
    )  # fmt: skip


def tunnel_is_open(name: str, local: int) -> bool:
    """Whether tunnel() has a connection that lives."""
    return succeeds("ssh", "-S", _control(name, local).name, "-O", "check", name, cwd=STATE)


def _control(name: str, local: int) -> Path:
    """The socket of a tunnel. ssh gets its name only, in STATE: a socket's path has 108 characters at most."""
    return STATE / f"tunnel-{name}-{local}"


def port_is_free(port: int) -> bool:
    """Whether somebody could listen on 127.0.0.1:port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def close_connection(name: str) -> None:
    """End the SSH masters (Ansible's and the tunnels') of a machine that goes away."""
    for control in STATE.glob(f"tunnel-{name}-*"):
        succeeds("ssh", "-S", control.name, "-O", "exit", name, cwd=STATE)
        control.unlink(missing_ok=True)
