"""Two ends by aioice that know each other's relayed addresses alone: aioice_relayed.py SERVER SECRET COUNT.

Each sends COUNT datagrams to the other one. The only line of output sums up what became of them; what aioice logs goes to stderr.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import os
import sys
import time

import aioice

server, secret, count = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3])

# Few enough for any socket's buffer.
ROUND = 20

# Far longer than anything takes that happens at all.
PATIENCE = 20


class Deletions(logging.Handler):
    """Counts allocations that were given back with the server's consent."""

    count = 0

    def emit(self, record):
        self.count += record.getMessage().startswith("TURN allocation deleted")


def end(name, is_controlling):
    username = f"{int(time.time()) + 3600}:{name}"
    password = base64.b64encode(hmac.digest(secret, username.encode(), hashlib.sha1)).decode()
    return aioice.Connection(
        ice_controlling=is_controlling,
        turn_server=(server, 3478),
        turn_username=username,
        turn_password=password,
        transport_policy=aioice.TransportPolicy.RELAY,
    )


async def introduce(one, other):
    """Tells `other` all that `one` has to say."""
    await one.gather_candidates()
    other.remote_username, other.remote_password = one.local_username, one.local_password
    for candidate in one.local_candidates:
        await other.add_remote_candidate(candidate)
    await other.add_remote_candidate(None)


def datagram(number):
    """Of a length of its own. It begins like no STUN message does."""
    return b"\xff" + number.to_bytes(4, "big") + os.urandom(number * 37 % 1200)


async def exchange(one, other):
    """What one sends that the other gets as it was, in rounds."""
    sent = received = 0
    while sent < count:
        batch = [datagram(sent + n) for n in range(min(ROUND, count - sent))]
        for data in batch:
            await one.send(data)
        sent += len(batch)
        for data in batch:
            try:
                received += await asyncio.wait_for(other.recv(), PATIENCE) == data
            except asyncio.TimeoutError:
                return sent, received
    return sent, received


def kinds(connection):
    return {pair.local_candidate.type for pair in connection._nominated.values()}


async def main():
    deletions = Deletions()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    logging.getLogger("aioice.turn").addHandler(deletions)

    alice, bob = end("alice", True), end("bob", False)
    await introduce(alice, bob)
    await introduce(bob, alice)
    await asyncio.gather(alice.connect(), bob.connect())
    ways = await asyncio.gather(exchange(alice, bob), exchange(bob, alice))
    is_relayed = kinds(alice) == kinds(bob) == {"relay"}
    await asyncio.gather(alice.close(), bob.close())

    sent, received = (sum(way) for way in zip(*ways))
    path = "relayed" if is_relayed else "not relayed"
    print(f"aioice {aioice.__version__}: {sent} sent, {received} received, {path}, {deletions.count} allocations given back")


asyncio.run(asyncio.wait_for(main(), 3 * PATIENCE))
