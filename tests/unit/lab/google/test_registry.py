"""``*.pkg.dev``: who may pull and push, and what reaches the registry behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest
import requests

from lab.google import Google
from tests.unit.plugins.modules.small_registry import MANIFEST, Registry, serving

HOST = "https://europe-west1-docker.pkg.dev"
PLACE = "projects/example-project/locations/europe-west1"
REPOSITORIES = "artifactregistry.projects.locations.repositories"
IMAGE = f"{HOST}/v2/example-project/code/app"
READER = "reader@example.com"


@pytest.fixture
def behind(google: Google) -> Iterator[Registry]:
    google.call(f"{REPOSITORIES}.create", {"parent": PLACE, "repositoryId": "code"}, {"format": "DOCKER"})
    with serving() as registry:
        google.registry = registry.address
        yield registry
    google.registry = ""


def login(google: Google, email: str | None = None) -> tuple[str, str]:
    return "oauth2accesstoken", google.token(email)


def push(auth: tuple[str, str], tag: str = "one", content: str = "{}") -> requests.Response:
    return requests.put(
        f"{IMAGE}/manifests/{tag}", data=content, auth=auth, headers={"Content-Type": MANIFEST}, timeout=10
    )


def test_it_asks_for_a_login(behind: Registry) -> None:
    answer = requests.get(f"{HOST}/v2/", timeout=10)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == f'Bearer realm="{HOST}/v2/token",service="{HOST[8:]}"'


def test_a_login_gets_a_token_as_docker_asks_for_it(google: Google, behind: Registry) -> None:
    answer = requests.get(f"{HOST}/v2/token", auth=login(google), timeout=10)
    bearer = {"Authorization": f"Bearer {answer.json()['token']}"}
    assert requests.get(f"{HOST}/v2/", headers=bearer, timeout=10).status_code == 200
    assert requests.get(f"{HOST}/v2/token", auth=("oauth2accesstoken", "nonsense"), timeout=10).status_code == 401
    assert requests.get(f"{HOST}/v2/token", auth=("somebody", google.token()), timeout=10).status_code == 401


def test_a_key_of_a_service_account_logs_in(google: Google, behind: Registry) -> None:
    key = google.service_account_key("worker@example-project.iam.gserviceaccount.com")
    assert requests.get(f"{HOST}/v2/", auth=("_json_key", json.dumps(key)), timeout=10).status_code == 200
    forged = {**key, "client_email": "other@example-project.iam.gserviceaccount.com"}
    assert requests.get(f"{HOST}/v2/", auth=("_json_key", json.dumps(forged)), timeout=10).status_code == 401


def test_an_image_is_kept_with_its_location(google: Google, behind: Registry) -> None:
    assert push(login(google)).status_code == 201
    assert "europe-west1/example-project/code/app:one" in behind.manifests
    pulled = requests.get(f"{IMAGE}/manifests/one", auth=login(google), timeout=10)
    assert (pulled.status_code, pulled.text, pulled.headers["Content-Type"]) == (200, "{}", MANIFEST)


def test_the_images_of_a_repository(google: Google, behind: Registry) -> None:
    listing = (f"{REPOSITORIES}.packages.list", {"parent": f"{PLACE}/repositories/code"})
    assert google.call(*listing) == {}
    assert push(login(google)).status_code == 201
    behind.manifests["europe-west1/example-project/other/app:one"] = behind.manifests[
        "europe-west1/example-project/code/app:one"
    ]
    assert google.call(*listing) == {"packages": [{"name": f"{PLACE}/repositories/code/packages/app"}]}


def test_a_layer_goes_through_in_pieces(google: Google, behind: Registry) -> None:
    blob = bytes(range(256)) * 4096
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    auth = login(google)
    started = requests.post(f"{IMAGE}/blobs/uploads/", auth=auth, timeout=10)
    where = HOST + started.headers["Location"]
    assert where.startswith(f"{IMAGE}/blobs/uploads")
    pieces = (blob[start : start + 100000] for start in range(0, len(blob), 100000))
    assert requests.patch(where, data=pieces, auth=auth, timeout=10).status_code == 202
    assert requests.put(f"{where}?digest={digest}", auth=auth, timeout=10).status_code == 201
    assert requests.get(f"{IMAGE}/blobs/{digest}", auth=auth, timeout=10).content == blob


def test_a_reader_pulls_and_does_not_push(google: Google, behind: Registry) -> None:
    push(login(google))
    assert requests.get(f"{IMAGE}/manifests/one", auth=login(google, READER), timeout=10).status_code == 403
    policy = {"bindings": [{"role": "roles/artifactregistry.reader", "members": [f"user:{READER}"]}]}
    google.call(f"{REPOSITORIES}.setIamPolicy", {"resource": f"{PLACE}/repositories/code"}, {"policy": policy})
    assert requests.get(f"{IMAGE}/manifests/one", auth=login(google, READER), timeout=10).status_code == 200
    refused = push(login(google, READER))
    assert refused.status_code == 403
    assert "artifactregistry.repositories.uploadArtifacts" in refused.json()["errors"][0]["message"]


def test_a_token_without_the_scope_is_refused(google: Google, behind: Registry) -> None:
    token = google.token(scopes=["https://www.googleapis.com/auth/compute"])
    assert push(("oauth2accesstoken", token)).status_code == 403


def test_a_repository_must_be_there(google: Google, behind: Registry) -> None:
    answer = requests.get(IMAGE.replace("/code/", "/other/") + "/manifests/one", auth=login(google), timeout=10)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "NAME_UNKNOWN")


def test_immutable_tags_stay(google: Google, behind: Registry) -> None:
    mask = {"name": f"{PLACE}/repositories/code", "updateMask": "dockerConfig"}
    google.call(f"{REPOSITORIES}.patch", mask, {"dockerConfig": {"immutableTags": True}})
    assert push(login(google)).status_code == 201
    assert push(login(google)).status_code == 201
    again = push(login(google), content='{"other": 1}')
    assert again.status_code == 400
    assert "tag immutability" in again.text


def test_without_a_registry_it_says_so(google: Google, behind: Registry) -> None:
    google.registry = "127.0.0.1:1"
    assert "does not answer" in push(login(google)).text
