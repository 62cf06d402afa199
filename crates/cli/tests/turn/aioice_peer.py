"""An end by aioice that carries datagrams of others: aioice_peer.py controlling|controlled.

Speaks JSON, an object a line. Says `username`, `password` and `candidates` first, and reads the other end's. Once a pair is nominated
says which (`pair`, `nominated`); then sends what comes as `send`, and says what arrives as `received`, both in hexadecimal, and the pairs again.
"""

import asyncio
import json
import sys

import aioice


def say(**what):
    print(json.dumps(what), flush=True)


def text(address):
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def ends(pair):
    return [text(pair.local_addr), text(pair.remote_addr)]


def pairs(connection):
    """The one in use, and all that were nominated: as the controlling end aioice nominates whatever works, and uses the latest."""
    (used,) = connection._nominated.values()
    return {"pair": ends(used), "nominated": [ends(pair) for pair in connection._check_list if pair.nominated]}


async def lines():
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


async def obey(connection, orders):
    async for order in orders:
        await connection.send(bytes.fromhex(order["send"]))


async def report(connection):
    while True:
        received = await connection.recv()
        say(received=received.hex(), **pairs(connection))


async def main():
    connection = aioice.Connection(ice_controlling=sys.argv[1] == "controlling")
    await connection.gather_candidates()
    say(
        version=aioice.__version__,
        username=connection.local_username,
        password=connection.local_password,
        candidates=["candidate:" + candidate.to_sdp() for candidate in connection.local_candidates],
    )

    orders = lines()
    other = await anext(orders)
    connection.remote_username, connection.remote_password = other["username"], other["password"]
    for line in other["candidates"]:
        await connection.add_remote_candidate(aioice.Candidate.from_sdp(line.removeprefix("candidate:")))
    await connection.add_remote_candidate(None)
    await connection.connect()
    say(**pairs(connection))

    done, _ = await asyncio.wait(
        [asyncio.create_task(obey(connection, orders)), asyncio.create_task(report(connection))],
        return_when=asyncio.FIRST_COMPLETED,
    )
    await connection.close()
    for task in done:
        task.result()


asyncio.run(main())
