"""Packets that no honest program sends, straight into an interface: crafted.py INTERFACE FRAME FROM4 FROM6 TO4 TO6 OTHERS…

FRAME is `-` for an interface without frames, or the address that frames go to. OTHERS are addresses to pretend to be.
"""

import random
import socket
import sys
import time

from scapy.all import (
    AH, ICMP, IP, TCP, UDP, DNS, DNSQR, Ether, ICMPv6DestUnreach, ICMPv6EchoRequest, ICMPv6PacketTooBig,
    ICMPv6ParamProblem, ICMPv6TimeExceeded, IPOption_LSRR, IPOption_NOP, IPOption_RR, IPOption_Timestamp, IPv6,
    IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN, Raw, fragment, fragment6, raw,
)

interface, frame, from4, from6, to4, to6, *others = sys.argv[1:]
body = Raw(b"not honest")


def both(*layers):
    """The same over either IP version, right in itself."""
    return [IP(src=from4, dst=to4) / layers[0], IPv6(src=from6, dst=to6) / layers[-1]]


def changed(packet, at, value):
    bytes_ = bytearray(raw(packet))
    bytes_[at : at + len(value)] = value
    return bytes(bytes_)


def wrong_lengths():
    udp4, udp6 = both(UDP(sport=4000, dport=9001) / body)
    for length in (0, 1, 19, 20, 27, 0xFFFF):
        yield changed(udp4, 2, length.to_bytes(2, "big"))
        yield changed(udp6, 4, length.to_bytes(2, "big"))
    for header in (0, 1, 4, 6, 15):
        yield changed(udp4, 0, bytes([0x40 | header]))
    for version in (0, 5, 7, 15):
        yield changed(udp4, 0, bytes([version << 4 | 5]))
    for length in (0, 7, 8, 17, 19, 0xFFFF):
        yield from both(UDP(sport=4000, dport=9001, len=length) / body)
    for offset in (0, 1, 4, 15):
        yield from both(TCP(sport=4000, dport=80, dataofs=offset, flags="S"))
    for cut in range(0, 60, 3):
        for packet in both(TCP(sport=4000, dport=80, flags="S") / body):
            yield raw(packet)[: cut + 1]


def wrong_checksums():
    yield IP(src=from4, dst=to4, chksum=0x1234) / UDP(sport=4000, dport=9001) / body
    yield from both(UDP(sport=4000, dport=9001, chksum=0x1234) / body)
    yield from both(UDP(sport=4000, dport=9001, chksum=0) / body)
    yield from both(TCP(sport=4000, dport=80, chksum=0x1234, flags="S"))
    yield from both(ICMP(chksum=0x1234) / body, ICMPv6EchoRequest(cksum=0x1234))


def options_and_headers():
    for options in (
        [IPOption_NOP()] * 40,
        [IPOption_RR()],
        [IPOption_LSRR(routers=[to4, "10.20.0.11"])],
        [IPOption_Timestamp()],
    ):
        yield IP(src=from4, dst=to4, options=options) / ICMP() / body
    yield IP(src=from4, dst=to4, options=[IPOption_NOP()] * 8) / UDP(sport=4000, dport=9001) / body
    to = IPv6(src=from6, dst=to6)
    for headers in (
        IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]),
        IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)]),
        IPv6ExtHdrRouting(addresses=[to6]),
        IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting() / IPv6ExtHdrDestOpt(),
        AH(),
    ):
        yield to / headers / UDP(sport=4000, dport=9001) / body
    chain = to
    for _ in range(100):
        chain = chain / IPv6ExtHdrDestOpt()
    yield chain / UDP(sport=4000, dport=9001) / body
    yield changed(to / IPv6ExtHdrDestOpt() / body, 41, b"\xff")


def fragments():
    large = UDP(sport=4000, dport=9001) / Raw(b"x" * 2000)
    yield from fragment(IP(src=from4, dst=to4, id=7) / large, 600)
    yield from fragment6(IPv6(src=from6, dst=to6) / IPv6ExtHdrFragment(id=7) / large, 600)
    # The second part lies over the first one, and says something else.
    for id_, offset in ((8, 0), (8, 1), (9, 2)):
        yield IP(src=from4, dst=to4, id=id_, flags="MF", proto=17) / Raw(b"a" * 64)
        yield IP(src=from4, dst=to4, id=id_, frag=offset, proto=17) / Raw(b"b" * 64)
        for more, start in ((1, 0), (0, offset)):
            header = IPv6ExtHdrFragment(id=id_, offset=start, m=more, nh=17)
            yield IPv6(src=from6, dst=to6) / header / Raw(b"c" * 64)
    # One that ends beyond what a packet may be, the smallest first part there is, and a whole one that calls itself a part.
    yield IP(src=from4, dst=to4, id=10, frag=8191, proto=17) / Raw(b"d" * 64)
    yield IP(src=from4, dst=to4, id=11, flags="MF", proto=6) / Raw(b"e" * 8)
    yield IPv6(src=from6, dst=to6) / IPv6ExtHdrFragment(id=12) / UDP(sport=4000, dport=9001) / body


def errors():
    quoted4 = [
        IP(src="198.51.100.1", dst="203.0.113.1") / UDP(sport=1, dport=2),
        IP(src=to4, dst=from4) / TCP(sport=80, dport=5),
        IP(src=to4, dst="100.64.77.77") / UDP(sport=9001, dport=4000),
        IP(src="100.96.0.1", dst=from4) / UDP(sport=9001, dport=4000),
        IP(src=to4, dst=from4, proto=1) / ICMP(type=3) / IP(src=from4, dst=to4),
        Raw(b""),
        Raw(b"\x45"),
        Raw(b"\x4f" + b"\0" * 30),
    ]
    for kind, code in ((3, 0), (3, 3), (3, 4), (3, 13), (4, 0), (5, 1), (11, 0), (12, 0), (13, 0), (200, 9)):
        for quoted in quoted4:
            yield IP(src=from4, dst=to4) / ICMP(type=kind, code=code, nexthopmtu=68) / quoted
    quoted6 = [
        IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=1, dport=2),
        IPv6(src=to6, dst=from6) / TCP(sport=80, dport=5),
        IPv6(src=to6, dst=from6, nh=44) / Raw(b"\x11\0\0\1" + b"\0" * 20),
        Raw(b"\x60"),
    ]
    for error in (
        ICMPv6DestUnreach(code=1),
        ICMPv6PacketTooBig(mtu=0),
        ICMPv6PacketTooBig(mtu=1280),
        ICMPv6TimeExceeded(),
        ICMPv6ParamProblem(),
    ):
        for quoted in quoted6:
            yield IPv6(src=from6, dst=to6) / error / quoted


def pretending():
    for other in others:
        if ":" in other:
            yield IPv6(src=other, dst=to6) / UDP(sport=4000, dport=9001) / body
            yield IPv6(src=from6, dst=other) / UDP(sport=4000, dport=9001) / body
            yield IPv6(src=other, dst=other) / TCP(sport=80, dport=80, flags="S")
        else:
            yield IP(src=other, dst=to4) / UDP(sport=4000, dport=9001) / body
            yield IP(src=from4, dst=other) / UDP(sport=4000, dport=9001) / body
            yield IP(src=other, dst=other) / TCP(sport=80, dport=80, flags="S")
    # What only peers say to each other, and questions that are none.
    yield IPv6(src="::", dst="::", nh=255) / Raw(b"\2" + b"\0" * 7)
    for port in (53, 53535):
        for payload in (body, DNS(rd=1, qd=DNSQR(qname="x.corp.test")), Raw(b"\0" * 12), Raw(b"\xff" * 1100)):
            for to in (to4, "100.100.111.1"):
                yield IP(src=from4, dst=to) / UDP(sport=4000, dport=port) / payload
                yield IP(src=from4, dst=to) / TCP(sport=4000, dport=port, flags="FSRPAU") / payload


def anything():
    """Good packets with a few bytes changed, the same ones each time."""
    chance = random.Random(6)
    datagrams = both(UDP(sport=4000, dport=9001) / body)
    segments = both(TCP(sport=4000, dport=80, flags="S"))
    echoes = both(ICMP(), ICMPv6EchoRequest())
    good = [raw(packet) for packet in datagrams + segments + echoes]
    for _ in range(2_000):
        packet = bytearray(chance.choice(good))
        for _ in range(chance.randrange(1, 6)):
            packet[chance.randrange(len(packet))] = chance.randrange(256)
        yield bytes(packet[: chance.randrange(1, len(packet) + 1)] if chance.random() < 0.2 else packet)


device = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sent = refused = 0
for kind in (wrong_lengths, wrong_checksums, options_and_headers, fragments, errors, pretending, anything):
    for packet in kind():
        packet = packet if isinstance(packet, bytes) else raw(packet)
        is_v6 = packet[0] >> 4 == 6
        number = 0x86DD if is_v6 else 0x0800
        if frame != "-":
            packet = raw(Ether(dst=frame, type=number)) + packet
        try:
            device.sendto(packet, (interface, number))
            sent += 1
        except OSError:
            # The kernel itself has no use for what is so short or so long.
            refused += 1
        # So that no queue on the way runs over.
        if sent % 50 == 0:
            time.sleep(0.005)
print(f"{sent} sent, {refused} refused by the kernel")
