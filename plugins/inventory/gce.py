# Copyright (c) 2026, the dataops.dagster_gce authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Hosts from Compute Engine, or an error: never a part of them in silence."""

from __future__ import annotations

DOCUMENTATION = r"""
name: gce
short_description: Hosts from Compute Engine, by label
description:
  - Takes the machines of a project that have certain labels as hosts, each by its name.
  - A project that does not exist, a missing permission or a zone that does not answer is an error.
  - No machine at all is a warning.
  - Reads files whose names end with C(gce.yml) or C(gce.yaml).
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.google
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: This plugin's name.
    type: str
    required: true
    choices: [dataops.dagster_gce.gce]
  labels:
    description: Labels that the machines have; an empty value stands for any.
    type: dict
    default:
      managed-by: dataops-dagster-gce
  filter:
    description: An expression of Google's for the rest, for example C(status = RUNNING).
    type: str
    default: ""
  zones:
    description: Only these zones.
    type: list
    elements: str
    default: []
  regions:
    description: Only these regions.
    type: list
    elements: str
    default: []
  ssh_via:
    description:
      - How the machines are reached, which decides C(ansible_host).
      - V(internal) and V(bastion) take the internal address, V(external) the external one, V(iap) the machine's name.
      - A machine without that address is an error.
    type: str
    choices: [iap, external, internal, bastion]
    default: internal
  host_keys:
    description: Whether to read the machines' SSH host keys from their guest attributes, one call each.
    type: bool
    default: false
"""

EXAMPLES = r"""
# inventory/prod/hosts.gce.yml
plugin: dataops.dagster_gce.gce
project: example-project
labels:
  managed-by: dataops-dagster-gce
  dagster-environment: prod
ssh_via: internal
keyed_groups:
  - key: gce_labels['dagster-environment']
    prefix: environment
groups:
  dagster: "'dagster-environment' in gce_labels"
compose:
  ansible_user: "'ansible'"
"""

from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_auth, google_guest, google_listing
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_links import path

Json = dict[str, Any]


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """The plugin."""

    NAME = "dataops.dagster_gce.gce"

    def verify_file(self, path: str) -> bool:
        """Whether the file is one of this plugin's."""
        return bool(super().verify_file(path)) and path.endswith(("gce.yml", "gce.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Read the file, ask Google or the cache, and add the hosts.

        Raises:
            AnsibleParserError: Google refuses, or the hosts are not unambiguous.
        """
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        self.load_cache_plugin()
        if google_auth.IMPORT_ERROR:
            raise AnsibleParserError(f"{path}: google-auth and requests are needed on the controller")
        key = self.get_cache_key(path)
        use_cache = self.get_option("cache") and cache
        found: list[Json] | None = self._cache.get(key) if use_cache else None
        if found is None:
            found = self._ask(path)
            if self.get_option("cache"):
                self._cache[key] = found
        if not found:
            self.display.warning(f"{path}: no machine in project {self.get_option('project')} has what is asked for")
        self._add(path, inventory, found)

    def _ask(self, source: str) -> list[Json]:
        """The machines, each a dict of its host variables."""
        options = {name: self.get_option(name) for name in google_auth.argument_spec()}
        try:
            client = Client(options)
            machines = google_listing.instances(
                client,
                wanted=google_listing.label_filter(self.get_option("labels"), self.get_option("filter")),
                zones=self.get_option("zones"),
                regions=self.get_option("regions"),
            )
            found = []
            for machine in machines:
                variables = {f"gce_{name}": value for name, value in google_listing.summary(machine).items()}
                variables["gce_project"] = options["project"]
                if self.get_option("host_keys"):
                    variables["gce_host_keys"] = google_guest.host_keys(client, path(machine["selfLink"]))
                found.append(variables)
        except GoogleError as error:
            raise AnsibleParserError(f"{source}: {error}") from error
        return found

    def _add(self, source: str, inventory: Any, machines: list[Json]) -> None:
        """Add the hosts, their variables and groups."""
        strict = self.get_option("strict")
        zones: dict[str, str] = {}
        for machine in machines:
            host = machine["gce_name"]
            if host in zones:
                raise AnsibleParserError(
                    f"{source}: two machines are named {host}, in {zones[host]} and in {machine['gce_zone']}; "
                    "choose one with zones, labels or filter"
                )
            zones[host] = machine["gce_zone"]
            inventory.add_host(host)
            for name, value in machine.items():
                inventory.set_variable(host, name, value)
            inventory.set_variable(host, "ansible_host", self._address(source, machine))
            self._set_composite_vars(self.get_option("compose"), machine, host, strict=strict)
            self._add_host_to_composed_groups(self.get_option("groups"), machine, host, strict=strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), machine, host, strict=strict)

    def _address(self, source: str, machine: Json) -> str:
        """Where SSH finds a machine."""
        via = self.get_option("ssh_via")
        if via == "iap":
            return str(machine["gce_name"])
        address = str(machine["gce_external_address" if via == "external" else "gce_internal_address"])
        if not address:
            raise AnsibleParserError(
                f"{source}: {machine['gce_name']} has no {'external' if via == 'external' else 'internal'} address, "
                f"which ssh_via: {via} needs"
            )
        return address
