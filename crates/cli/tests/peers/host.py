"""The host behind the gateway: says by HTTP on port 80 and by UDP on ports 9001 and 9002 who is asking, at each address."""

import selectors
import socket
import sys

waiting = selectors.DefaultSelector()


def listen(address, kind, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    here = socket.socket(family, kind)
    here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    here.bind((address, port))
    if kind == socket.SOCK_STREAM:
        here.listen(64)
    waiting.register(here, selectors.EVENT_READ, kind)


def answer_http(connection, peer):
    connection.settimeout(5)
    request = b""
    while b"\r\n\r\n" not in request:
        more = connection.recv(4096)
        if not more:
            return
        request += more
    body = f"{peer[0]} {peer[1]}\n".encode()
    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


for address in sys.argv[1:]:
    listen(address, socket.SOCK_STREAM, 80)
    for port in (9001, 9002):
        listen(address, socket.SOCK_DGRAM, port)
print("listening", flush=True)

while True:
    for key, _ in waiting.select():
        try:
            if key.data == socket.SOCK_STREAM:
                connection, peer = key.fileobj.accept()
                with connection:
                    answer_http(connection, peer)
            else:
                _, peer = key.fileobj.recvfrom(65536)
                key.fileobj.sendto(f"{peer[0]} {peer[1]}\n".encode(), peer)
        except OSError as error:
            # Whoever asked is gone, or the way back is.
            print(error, flush=True)
