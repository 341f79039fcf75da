# SPDX-License-Identifier: Apache-2.0
"""The README.md of an export: what is in it, what does not move, and the commands in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.plugin_utils import helm_values

NAMESPACE = "dagster"
REPOSITORY = "https://dagster-io.github.io/helm"
# Tables that people ask for; the counts of all are in export.json.
_SHOWN = ("runs", "event_logs", "job_ticks", "instigators", "asset_keys")

_HEAD = """\
# {host}, for Dagster's Helm chart

Dagster {version} on PostgreSQL {major}. {kind}

Made by `playbooks/export_helm.yml` of dataops.dagster_gce. No password is in it. Run configurations, logged events and
tags are in the dump as users wrote them: a secret that somebody put there is here now, too. Treat `database.dump` as
you treat the database.

| file | what |
|---|---|
| `values.yaml` | the instance's settings and images, in the chart's words |
| `database.dump` | `pg_dump --format=custom` of one snapshot, read back by `pg_restore` before it was sent |
| `dagster.yaml` | the machine's own, to compare; not for the cluster |
| `export.json` | versions, image digests, rows by table ({counts}) |
| `SHA256SUMS` | `sha256sum --check SHA256SUMS` |
"""
_FINAL = "The machine had been stopped for it: this is the one to move with."
_REHEARSAL = (
    "**A rehearsal**: the machine works on, and what it does after the dump is not in it.\n"
    "The one to move with is made in step 2."
)

_FILL_IN = """\
## Fill in

{database}
- `postgresqlParams.sslmode` is `{sslmode}`; `verify-ca` needs the authority's file in every pod (`volumes`,
  `volumeMounts`).
- Access to Google: `serviceAccount.annotations` with `iam.gke.io/gcp-service-account` (Workload Identity) for
  webserver, daemon and user code, in place of the machine's service account.
- `ingress`, with whatever asks users who they are: the chart's webserver has no login.
"""
_NEW_DATABASE = """\
- `postgresql.postgresqlHost`: a PostgreSQL {major} or newer that the cluster reaches (Cloud SQL), with the user
  `{user}` and an empty database `{name}` that belongs to it."""
_SAME_DATABASE = """\
- `postgresql.postgresqlHost` is the database that the machine uses, outside of it. If it is to be the cluster's too,
  leave out steps 3 and 4: nothing has to be restored. Never let both use it at once."""

_IMAGES = """\
## Images

The user code is release `{release}`{commit}. {core}

Webserver and daemon are `{webserver}`{why}.
"""
_PUSHED = """\
A registry has its image; the cluster's nodes have to be allowed to read it
(`roles/artifactregistry.reader`). Into another registry, with the same digest:

```console
$ crane copy {digest} REGISTRY/docker_dagster_core:{release}
```"""
_BUILT_HERE = """\
Its image was built on the machine and **no registry has it**.
On the machine, as root, before anything else (`docker login` first, if the push is refused):

```console
# docker tag {id} \\
    {name}
# docker push {name}
```

The push prints `digest: sha256:…`: write it as `digest:` in place of `tag:` into values.yaml. Another export writes
the tag again; one after a release that a registry has (playbooks/build_core.yml) writes the digest itself."""
_NO_K8S = """

The image has no `dagster-k8s`. Dagster's documentation asks for it in images of user code, and `k8s_job_executor`
needs it: add it to `requirements/dagster_core.in`, release, and export again."""
_CHART_IMAGE = """,
the chart's own, since the machine's ({id}) {reason};
`dagster_export_webserver_image` names another one"""

_ORDER = """\
## The order

1. **Secrets in the cluster.** {files} Remove the files afterwards.

```console
$ kubectl create namespace {namespace}
$ kubectl --namespace {namespace} create secret generic {postgres_secret} \\
    --from-file=postgresql-password=password{environment}
```

2. **Stop the machine and export.** From here on nothing is launched. Nobody may deploy or run site.yml on it any more.

```console
{host}# dagster-gce pause 'moves to Kubernetes'     # the watch leaves alone what is stopped
{host}# docker stop dagster-daemon                  # no schedule, no sensor, nothing leaves the queue
{host}# dagster-gce status                          # until no run is in flight: let them end, or end them in the UI
{host}# docker stop dagster-webserver               # and dagster-webserver-read-only, where there is one
$ ansible-playbook -i INVENTORY playbooks/export_helm.yml --limit {host} -e dagster_export_final=true
```

   Runs that wait in the queue name the machine's image: cancel them first, and launch them again there. One that stays
   STARTING was about to be started when the daemon stopped: terminate it in the UI, by force.

3. **Restore**, from where PostgreSQL can be reached. `pgpass` (mode 0600) is a line `HOST:PORT:DATABASE:USER:PASSWORD`.

```console
$ sha256sum --check SHA256SUMS
$ {client} \\
    pg_restore {login} \\
    --no-owner --no-privileges --exit-on-error --single-transaction /export/database.dump
```

4. **Compare** with `export.json`: runs, and likewise `event_logs` and `job_ticks`.

```console
$ {client} \\
    psql {login} --command 'select count(*) from runs'
```

5. **Install.** The chart's version is Dagster's; the database has that version's schema, so nothing is migrated.

```console
$ helm repo add dagster {repository}
$ helm install dagster dagster/dagster --version {version} --namespace {namespace} --values values.yaml
$ kubectl --namespace {namespace} wait --for=condition=available deployment --all --timeout=10m
```

   A rehearsal adds `--set dagsterDaemon.enabled=false`: schedules and sensors are on in the copy, too, and would launch
   everything twice.

6. **Check** the instance that the chart has made against `dagster.yaml`, then the UI.

```console
$ kubectl --namespace {namespace} get configmap dagster-instance --output 'jsonpath={{.data.dagster\\.yaml}}'
$ kubectl --namespace {namespace} port-forward service/dagster-dagster-webserver 3000:80
```

   Under Deployment the code location `{location}` is LOADED, by that very name although its service is called
   `{service}`: schedules, sensors and their ticks belong to it (`dagsterWebserver.workspace` says so). Runs are all
   there, schedules are on or off as they were, every daemon is healthy, and one run that you launch succeeds.

7. **DNS** of the UI to the cluster's ingress. The pipeline that released to the machine now does `helm upgrade` with
   the new digest.

8. **Later**: `playbooks/destroy.yml`, after a last backup has left the machine.
"""
_PASSWORD_FILE = "`password` holds PostgreSQL's password without a line end."  # noqa: S105 - a sentence
_ENVIRONMENT_FILE = """
   `environment` has a line `NAME=value`, without quotes, for each of {names} (the machine's are in its
   `/opt/dagster/.env`)."""
_CREATE_ENVIRONMENT = """
$ kubectl --namespace {namespace} create secret generic {secret} --from-env-file=environment"""

_DOES_NOT_MOVE = """\
## What does not move

- **Files in the volume `dagster-storage`** ({others} of them, {others_size}, beside compute logs): what the user code's
  I/O managers keep on the machine. Pods have no such disk. Let the code use a bucket, and copy what is needed, before
  the move.{logs}
- **The run launcher** `{launcher}`. Its limits of memory and CPUs are `runLauncher.config.k8sRunLauncher.resources`;
  processes, read-only root, stop timeout and network have no counterpart: `runK8sConfig` says how pods run.
- **The code server's limit** of {memory} memory: the chart would give `deployments[].resources` to runs as well.
- **What the machine does beside Dagster**: backups, upkeep, the watch, metrics, the gateway with its logins, the
  firewall. Cloud SQL's backups, GKE and an identity-aware proxy take their places.{locations}
"""
_LOCAL_LOGS = """
- **Compute logs** ({logs} files, {logs_size}) are on the machine's disk. Runs are there without them, and
  `NoOpComputeLogManager` keeps none of new runs: set `computeLogManager` to `GCSComputeLogManager` with a bucket."""
_LOCATIONS = """
- **Other code locations** ({names}): values.yaml has them under the addresses that the machine uses, which the cluster
  has to reach."""

_TAGS = """\
## Tags in the user code

| here | there, in the tag `dagster-k8s/config` of a job or run |
|---|---|
| `dagster_gce/cpu: "2"` | `{"container_config": {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}}}` |
| `dagster_gce/memory: 4g` | `{"container_config": {"resources": {"requests": {"memory": "4Gi"}}}}`, and `limits` |
| `dagster_gce/node: disk=fast` | `{"pod_spec_config": {"node_selector": {"disk": "fast"}}}` |

Nothing reads those on the left in a cluster: change them before the first run that needs them.
"""
_BACK = """\
## Back

Until something has run in the cluster, the machine is as it was: `helm uninstall dagster --namespace dagster`, then
`docker start dagster-webserver dagster-daemon` and `dagster-gce resume`. After that the way back is a dump of the other
database, restored the same way.
"""


def readme(
    host: str, facts: Mapping[str, Any], instance: Mapping[str, Any], values: Mapping[str, Any], dump: Mapping[str, Any]
) -> str:
    """The text.

    Args:
        host: the machine's name in the inventory.
        facts: what the module dagster_export tells of the machine.
        instance: the machine's dagster.yaml.
        values: what stands in values.yaml.
        dump: what the module tells of the dump; empty before there is one.
    """
    return "\n".join(
        [
            _head(host, facts, dump),
            _fill_in(facts, values),
            _images(facts, values),
            _order(host, facts, values),
            _does_not_move(facts, instance),
            _TAGS,
            _BACK,
        ]
    )


def _version(facts: Mapping[str, Any]) -> str:
    return str(facts["webserver"]["packages"]["dagster"])


def _head(host: str, facts: Mapping[str, Any], dump: Mapping[str, Any]) -> str:
    tables = dump.get("database", {}).get("tables", {})
    return _HEAD.format(
        host=host,
        version=_version(facts),
        major=facts["database"]["major"],
        kind=_FINAL if facts["final"] else _REHEARSAL,
        counts=", ".join(f"{name} {tables[name]}" for name in _SHOWN if name in tables) or "no dump yet",
    )


def _fill_in(facts: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    given = values["postgresql"]
    new = given["postgresqlHost"] == helm_values.POSTGRES_HOST
    return _FILL_IN.format(
        database=_NEW_DATABASE.format(**facts["database"]) if new else _SAME_DATABASE,
        sslmode=given["postgresqlParams"]["sslmode"],
    )


def _images(facts: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    core, image = facts["core"], values["dagster-user-deployments"]["deployments"][0]["image"]
    if core["image"]["digest"]:
        text = _PUSHED.format(digest=core["image"]["digest"], release=core["release"])
    else:
        text = _BUILT_HERE.format(id=core["image"]["id"], name=reference(image))
    used = values["dagsterWebserver"]["image"]
    return _IMAGES.format(
        release=core["release"],
        commit=f", commit `{core['git_sha']}`" if core["git_sha"] else "",
        core=text + ("" if core["packages"]["dagster-k8s"] else _NO_K8S),
        webserver=reference(used),
        why=_why_chart_image(facts) if used["repository"] == helm_values.CHART_IMAGE else "",
    )


def reference(image: Mapping[str, Any]) -> str:
    """An image of values.yaml as one word."""
    digest = f"@{image['digest']}" if "digest" in image else ""
    return str(image["repository"]) + (f":{image['tag']}" if "tag" in image else "") + digest


def _why_chart_image(facts: Mapping[str, Any]) -> str:
    known = facts["webserver"]["packages"]["dagster-k8s"]
    reason = "is in no registry" if known else "has no `dagster-k8s`, without which nothing can launch a run there"
    return _CHART_IMAGE.format(id=facts["webserver"]["id"][:19], reason=reason)


def _order(host: str, facts: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    database, given = facts["database"], values["postgresql"]
    secrets = facts["core"]["secret_names"]
    files, environment = _PASSWORD_FILE, ""
    if secrets:
        files += _ENVIRONMENT_FILE.format(names=", ".join(f"`{name}`" for name in secrets))
        environment = _CREATE_ENVIRONMENT.format(namespace=NAMESPACE, secret=helm_values.ENVIRONMENT_SECRET)
    return _ORDER.format(
        host=host,
        namespace=NAMESPACE,
        repository=REPOSITORY,
        version=_version(facts),
        files=files,
        environment=environment,
        postgres_secret=helm_values.POSTGRES_SECRET,
        client=(
            'docker run --rm --volume "$PWD:/export:ro" --env PGPASSFILE=/export/pgpass'
            f" postgres:{facts['database']['major']}"
        ),
        login=(
            f"--host {given['postgresqlHost']} --port {given['service']['port']} --username {database['user']}"
            f" --dbname {database['name']}"
        ),
        location=facts["location"],
        service=helm_values.deployment_name(facts["location"]),
    )


def _does_not_move(facts: Mapping[str, Any], instance: Mapping[str, Any]) -> str:
    kept = facts["files"]
    logs = _LOCAL_LOGS.format(logs=kept["logs"], logs_size=size(kept["logs_bytes"]))
    others = [f"`{each['name']}`" for each in helm_values.servers(facts) if each["name"] != facts["location"]]
    return _DOES_NOT_MOVE.format(
        others=kept["others"],
        others_size=size(kept["others_bytes"]),
        logs=logs if helm_values.logs_are_local(instance) else "",
        launcher=(instance.get("run_launcher") or {}).get("class", "DefaultRunLauncher"),
        memory=size(facts["core"]["memory"]) if facts["core"]["memory"] else "no",
        locations=_LOCATIONS.format(names=", ".join(others)) if others else "",
    )


def size(number: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
