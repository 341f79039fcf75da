# SPDX-License-Identifier: Apache-2.0
"""The options that modules for Google Cloud share; plugins/module_utils/google_auth.py has their specification."""

from __future__ import annotations


class ModuleDocFragment:
    """Options for the project, authentication and endpoints."""

    DOCUMENTATION = r"""
requirements:
  - python >= 3.11
  - google-auth >= 2.28
  - requests >= 2.28
options:
  project:
    description: The project's id.
    type: str
    required: true
  auth_kind:
    description:
      - How to authenticate.
      - V(application) takes what Google calls application default credentials, E(GOOGLE_APPLICATION_CREDENTIALS), then
        C(gcloud auth application-default login), then the machine's own service account.
      - V(serviceaccount) takes a key, O(service_account_file) or O(service_account_contents).
      - V(accesstoken) takes a ready token, O(access_token).
      - V(external) takes a workload identity federation configuration, O(credentials_file), as
        C(google-github-actions/auth) and C(gcloud iam workload-identity-pools create-cred-config) write it.
    type: str
    choices: [application, serviceaccount, accesstoken, external]
    default: application
  service_account_file:
    description: Path of a service account's JSON key.
    type: path
  service_account_contents:
    description: The JSON key itself, for example from a vault.
    type: jsonarg
  access_token:
    description: An OAuth 2.0 access token with the scope C(cloud-platform).
    type: str
  credentials_file:
    description: Path of a workload identity federation configuration. It holds no secret.
    type: path
  impersonate_service_account:
    description:
      - E-mail of a service account to act as, whatever O(auth_kind) is.
      - The caller needs C(roles/iam.serviceAccountTokenCreator) on it.
    type: str
  impersonate_delegates:
    description: Service accounts between the caller and O(impersonate_service_account), in order.
    type: list
    elements: str
    default: []
  universe_domain:
    description: The domain of the APIs, for clouds of Google's other than the public one.
    type: str
    default: googleapis.com
  api_endpoints:
    description:
      - "Where single APIs are found, for Private Service Connect or a proxy of one's own, for example
        C(compute: https://compute-psc.p.googleapis.com)."
      - The keys are C(compute), C(iam), C(cloudresourcemanager), C(serviceusage), C(artifactregistry),
        C(secretmanager), C(oslogin) and C(iap). A path in the URL replaces the API's own (C(compute/v1), C(v1)).
    type: dict
    default: {}
  timeout:
    description: Seconds to wait for one operation of Google's to end.
    type: int
    default: 600
notes:
  - Runs on the controller (C(delegate_to=localhost) or C(connection=local)); nothing is needed on the machine.
  - E(HTTPS_PROXY), E(NO_PROXY) and E(REQUESTS_CA_BUNDLE) are honoured.
"""
