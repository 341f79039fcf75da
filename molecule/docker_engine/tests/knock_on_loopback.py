"""Runs in a container: send a raw SYN for the host's 127.0.0.1 over the bridge, print what comes back.

Arguments: own address, the bridge's address, port. The kernel would route 127.0.0.1 to the container itself, hence raw.
"""

import socket
import struct
import sys
import time

SOURCE_PORT = 44444


def checksum(data: bytes) -> int:
    """Return the Internet checksum, RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def bridge_mac(gateway: str) -> bytes:
    """Return the bridge's hardware address, after a packet that makes the kernel ask for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(b"x", (gateway, 9))
    time.sleep(0.5)
    with open("/proc/net/arp", encoding="ascii") as table:
        return next(bytes.fromhex(line.split()[3].replace(":", "")) for line in table if line.startswith(gateway + " "))


def main(own: str, gateway: str, port: int) -> str:
    """Return `answered` or `silence`."""
    source, target = socket.inet_aton(own), socket.inet_aton("127.0.0.1")

    def tcp(check: int) -> bytes:
        return struct.pack("!HHIIBBHHH", SOURCE_PORT, port, 1, 0, 5 << 4, 2, 1024, check, 0)

    def ip(check: int) -> bytes:
        return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 1, 0, 64, 6, check, source, target)

    segment = tcp(checksum(source + target + struct.pack("!BBH", 0, 6, 20) + tcp(0)))
    with open("/sys/class/net/eth0/address", encoding="ascii") as address:
        mac = bytes.fromhex(address.read().strip().replace(":", ""))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as raw:
        raw.bind(("eth0", 0))
        raw.settimeout(3)
        raw.send(bridge_mac(gateway) + mac + b"\x08\x00" + ip(checksum(ip(0))) + segment)
        try:
            while True:
                frame = raw.recv(2000)
                if frame[23] == 6 and frame[26:30] == target:
                    return "answered"
        except TimeoutError:
            return "silence"


print(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
