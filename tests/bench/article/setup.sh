#!/usr/bin/env bash
# The baseline of first_setup_ratio: what an engineer with the article beside him types on a bare machine.
# Usage, as root on the machine: setup.sh REGISTRY   (host:port that has the two images)
set -euo pipefail
registry=$1
cd "$(dirname "$0")"

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq --yes --no-install-recommends docker.io docker-cli docker-compose >/dev/null
mkdir -p /etc/docker
cat >/etc/docker/daemon.json <<JSON
{"registry-mirrors": ["http://$registry"], "insecure-registries": ["$registry"]}
JSON
systemctl restart docker

for image in docker_dagster_core_image dagster_daemon_webserver_image; do
    docker pull --quiet "$registry/bench/$image:1"
    docker tag "$registry/bench/$image:1" "$image"
done
cat >.env <<ENV
POSTGRES_USER=dagster
POSTGRES_PASSWORD=article
POSTGRES_DB=dagster
ENV
chown -R 10001:10001 dagster_home
docker compose -f docker-compose-GCE.yml up -d

question='{"query": "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus locationOrLoadError { __typename } } } } }"}'
for _ in $(seq 300); do
    if curl --silent --header 'Content-Type: application/json' --data "$question" http://127.0.0.1:3000/graphql |
        grep --quiet RepositoryLocation; then
        exit 0
    fi
    sleep 0.2
done
echo 'the code location was not loaded within a minute' >&2
exit 1
