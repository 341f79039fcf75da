# Copyright (c) 2026, the dataops.dagster_gce authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Documentation of the action plugin of the same name, which does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_inputs
short_description: Check variables, and report every mistake at once
version_added: 1.0.0
description:
  - Checks variables against rules, on the controller, without facts and without a connection to the host.
  - It looks the variables up by name. A variable that is not set or whose template fails is therefore one more line
    of the report.
  - "Every error has the form C(<variable>: found <what>; expected <what>)."
author: dataops (@dataops)
extends_documentation_fragment: dataops.dagster_gce.attributes.reads
options:
  checks:
    description:
      - A mapping from the name of a variable to its check, which is a mapping itself.
      - C(rule) names the rule, see the notes.
      - C(required) (default V(true)) says whether the variable must be set and not empty. If V(false), a variable that
        is not set, null or an empty text passes without a look at the rule.
      - C(secret) (default V(false)) keeps the value out of the error and of the result. A value that ansible-vault has
        encrypted is always kept out.
      - C(hint) is a sentence added to the error, for example how to get a good value.
    type: dict
    default: {}
  report:
    description: Fail with every error that was collected (see the notes), if there is one.
    type: bool
    default: false
notes:
  - In a play that sets the variable C(check_inputs_collect) to V(true), the task does not fail but adds its errors to
    the fact C(check_inputs_errors). A later task with O(report=true) fails with all of them.
  - Integers and booleans are also accepted as texts, since C(-e name=5) passes a text.
  - "C(absolute_path): a path from the root, other than the root itself, without C(..)."
  - "C(boolean): true, false or one of Ansible's words for them."
  - "C(cidr): an IPv4 range whose address is its first, with a prefix of at most C(longest) (32)."
  - "C(certificate): a chain of certificates as PEM text that is valid today, for the host name in the variable that
    C(name_variable) names."
  - "C(choice): one of the list C(choices)."
  - "C(dotenv_value): a text without line end or NUL, so that it fits on a line of a .env file."
  - "C(duration_seconds): a whole number from C(min) (0) to C(max)."
  - "C(google_name): a name of C(shortest) (1) to C(longest) (63) characters, as Google Cloud takes them."
  - "C(host_name): a host name with a dot in it, and no address."
  - "C(image_reference): an image with a tag other than V(latest), or with a digest."
  - "C(list): a list, with C(elements) one of V(text), V(mapping), V(integer), and not empty if C(nonempty)."
  - "C(mapping): a mapping, not empty if C(nonempty)."
  - "C(nonempty): anything but nothing."
  - "C(passwords): a mapping from users to passwords that are not weak. Always secret."
  - "C(port): an integer from C(min) (1) to C(max) (65535)."
  - "C(positive_integer): an integer from C(min) (1) to C(max)."
  - "C(postgres_host): the name or the address of one machine, without scheme and port."
  - "C(postgres_identifier): a name that PostgreSQL 17 takes without quotes."
  - "C(postgres_sslmode): one of libpq's V(disable), V(prefer), V(require), V(verify-ca), V(verify-full)."
  - "C(private_key): the key of the certificate in the variable that C(certificate_variable) names, as PEM text without
    a password. Always secret."
  - "C(regex): a text that C(pattern) matches from its first to its last character; C(expected) words the error."
  - "C(service_account): the JSON key of a Google service account, as text, as mapping, or as the name of a file on the
    controller. The variable that C(project_variable) names holds the project it has to belong to, if it is not empty.
    Always secret."
  - "C(size): a size as Docker writes it (V(512m), V(2g)), from C(min) to C(max)."
  - "C(uid): a numeric user or group id from C(min) (0) to C(max)."
  - "C(url): a URL with a host whose scheme is one of C(schemes) (V(http), V(https))."
"""

EXAMPLES = r"""
- name: Check the inputs
  dataops.dagster_gce.check_inputs:
    checks:
      docker_engine_source: {rule: choice, choices: [docker, distro]}
      dagster_home_postgres_user: {rule: postgres_identifier}
      dagster_home_postgres_password: {rule: dotenv_value, required: false, secret: true}
      dagster_home_service_account:
        rule: service_account
        project_variable: dagster_home_gcp_project
        hint: "gcloud iam service-accounts keys create makes one"

- name: Report the mistakes of every role in one list
  dataops.dagster_gce.check_inputs:
    report: true
"""

RETURN = r"""
msg:
  description: The errors, one a line, or that there are none.
  returned: always
  type: str
errors:
  description: All errors collected so far.
  returned: when errors were collected instead of reported
  type: list
  elements: str
"""
