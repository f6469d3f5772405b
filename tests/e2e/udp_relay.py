"""A bad network: a UDP relay between one client and one server, in a process of its own.

``python udp_relay.py [--loss SHARE] [--delay-ms MS] [--jitter-ms MS] [--seed N]`` prints the address and port that the
client sends to. The server's address and port are read from standard input; what comes before is lost. Each packet, in
either direction, is lost with the probability SHARE, or waits for the delay and up to ±jitter of its own, so that packets
overtake each other. When standard input ends, the counts are printed as a line of JSON.
"""

import argparse
import heapq
import json
import random
import selectors
import socket
import sys
import time
from collections import Counter
from itertools import count

import ifaddr


def own_address() -> str:
    """An address of this machine that is no loopback one: ICE agents offer no others."""
    return next(
        str(ip.ip) for a in ifaddr.get_adapters() for ip in a.ips if ip.is_IPv4 and ip.ip != "127.0.0.1"
    )


def run(arguments: argparse.Namespace) -> Counter[str]:
    chance = random.Random(arguments.seed)
    address = own_address()
    ends = {side: socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for side in ("client", "server")}
    selector = selectors.DefaultSelector()
    for side, end in ends.items():
        end.bind((address, 0))
        end.setblocking(False)
        selector.register(end, selectors.EVENT_READ, side)
    selector.register(sys.stdin, selectors.EVENT_READ, "commands")
    print(address, ends["client"].getsockname()[1], flush=True)

    where: dict[str, tuple[str, int]] = {}
    waiting: list[tuple[float, int, str, bytes]] = []
    numbers, counts = count(), Counter[str]()
    last_sent = {"client": -1, "server": -1}
    while True:
        while waiting and waiting[0][0] <= time.monotonic():
            _, number, side, data = heapq.heappop(waiting)
            counts[f"to_{side}"] += 1
            counts[f"to_{side}_reordered"] += number < last_sent[side]
            last_sent[side] = max(number, last_sent[side])
            ends[side].sendto(data, where[side])
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for key, _ in selector.select(pause):
            if key.data == "commands":
                line = sys.stdin.readline()
                if not line:
                    return counts
                host, port = line.split()
                where["server"] = (host, int(port))
                continue
            data, sender = ends[key.data].recvfrom(2048)
            if key.data == "client":
                where["client"] = sender
            side = "server" if key.data == "client" else "client"
            if side not in where or chance.random() < arguments.loss:
                counts[f"to_{side}_lost"] += 1
                continue
            delay_ms = arguments.delay_ms + chance.uniform(-1, 1) * arguments.jitter_ms
            heapq.heappush(waiting, (time.monotonic() + delay_ms / 1000, next(numbers), side, data))


parser = argparse.ArgumentParser()
parser.add_argument("--loss", type=float, default=0.0)
parser.add_argument("--delay-ms", type=float, default=30.0)
parser.add_argument("--jitter-ms", type=float, default=0.0)
parser.add_argument("--seed", type=int, default=1)
print(json.dumps(run(parser.parse_args())))
