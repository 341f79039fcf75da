"""What the audit's sources ask for and this product knowingly does not do; docs/security.md gives each its reason."""

from __future__ import annotations

# Numbers of docs/security.md, "What is knowingly not met".
NOT_MET = {
    "N1": "auditd",
    "N2": "user namespaces (userns-remap)",
    "N3": "inter-container communication on dagster-network",
    "N4": "the Docker socket in a container",
    "N5": "CPU limits of the stack's containers",
    "N6": "restart at most five times",
    "N7": "userland-proxy",
    "N8": "content trust and an authorization plugin",
    "N9": "a file system of its own for Docker's data",
    "N10": "the kernel's own settings in the lab",
    "N11": "a health check of releases and runs",
}
