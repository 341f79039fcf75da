"""Runs on the machine: a neighbour in a network namespace, as the metadata server is one of a machine at Google.

Usage: neighbour.py up        169.254.169.254 and fd20:ce::254 answer on the ports 53 and 80
       neighbour.py down
"""

from __future__ import annotations

import subprocess
import sys

SERVER = """
import http.server, socketserver, threading
class Server(http.server.ThreadingHTTPServer):
    address_family = __import__("socket").AF_INET6
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"token")
    def log_message(self, *_): pass
for port in (53, 80):
    threading.Thread(target=Server(("::", port), Handler).serve_forever).start()
"""
UP = """
ip netns add metadata
ip link add metadata0 type veth peer name metadata1 netns metadata
ip address add 169.254.169.1/24 dev metadata0
ip -6 address add fd20:ce::1/64 dev metadata0 nodad
ip link set metadata0 up
ip -n metadata address add 169.254.169.254/24 dev metadata1
ip -n metadata -6 address add fd20:ce::254/64 dev metadata1 nodad
ip -n metadata link set metadata1 up
ip -n metadata link set lo up
ip -n metadata route add default via 169.254.169.1
sysctl -qw net.ipv6.conf.metadata0.disable_ipv6=0
"""


def main() -> int:
    """Make it or take it away."""
    subprocess.run(["systemctl", "stop", "neighbour"], check=False, stderr=subprocess.DEVNULL)
    subprocess.run(["ip", "netns", "delete", "metadata"], check=False, stderr=subprocess.DEVNULL)
    subprocess.run(["ip", "link", "delete", "metadata0"], check=False, stderr=subprocess.DEVNULL)
    if sys.argv[1] == "up":
        for line in UP.strip().splitlines():
            subprocess.run(line.split(), check=True)
        start = ["systemd-run", "--quiet", "--unit=neighbour", "--collect", "ip", "netns", "exec", "metadata"]
        subprocess.run([*start, "python3", "-c", SERVER], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
