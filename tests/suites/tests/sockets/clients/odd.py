"""Clients with unusual sockets. Prints the peer's address and its answer, or the name of the error."""

import errno
import select
import socket
import sys

UDPLITE = 136
IP_RECVERR = 11
IPV6_RECVERR = 25


def fastopen(family, address):
    """TCP Fast Open: sendto() connects the socket and sends the first data. connect() is not called."""
    client = socket.socket(family, socket.SOCK_STREAM)
    client.sendto(b"who\n", socket.MSG_FASTOPEN, address)
    return client.getpeername()[:2], client.recv(512)


def mptcp(family, address):
    client = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
    client.connect(address)
    client.send(b"who\n")
    return client.getpeername()[:2], client.recv(512)


def ping(family, address):
    """Connects a socket for ICMP echo requests, as ping opens it without privileges."""
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    client = socket.socket(family, socket.SOCK_DGRAM, protocol)
    client.connect(address)
    return client.getpeername()[:2], b""


def raw(family, address):
    client = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_UDP)
    client.connect((address[0], 0))
    return client.getpeername()[:2], b""


def udplite(family, address):
    client = socket.socket(family, socket.SOCK_DGRAM, UDPLITE)
    client.connect(address)
    return client.getpeername()[:2], b""


def blocked(family, address):
    """Waits for an answer. The test removes the backend meanwhile, so the agent destroys the socket."""
    client = socket.socket(family, socket.SOCK_DGRAM)
    client.connect(address)
    print("connected", flush=True)
    return client.getpeername()[:2], client.recv(512)


def error_queue(family, address):
    """Sends to a port without a listener. Returns the address and the data that the kernel puts into the error queue."""
    client = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        client.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    else:
        client.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    client.connect(address)
    client.send(b"who")
    queue = select.poll()
    queue.register(client, 0)
    queue.poll()
    data, _, _, source = client.recvmsg(512, 512, socket.MSG_ERRQUEUE)
    return source[:2], data


def one_port(family, address):
    """Connects two sockets from one local port. The second connects to the host in the last argument."""
    first, second = (socket.socket(family, socket.SOCK_STREAM) for _ in range(2))
    for client in first, second:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    first.bind(("", 0))
    first.connect(address)
    second.bind(("", first.getsockname()[1]))
    second.connect((sys.argv[4], address[1]))
    return second.getpeername()[:2], b""


def priority(family, address):
    client = socket.socket(family, socket.SOCK_STREAM)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, int(sys.argv[4]))
    client.connect(address)
    client.send(b"who\n")
    return client.getpeername()[:2], client.recv(512)


kind, host, port = sys.argv[1:4]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
try:
    (name, number), answer = globals()[kind](family, (host, int(port)))
    print(name, number, answer.decode().strip())
except OSError as error:
    print(errno.errorcode.get(error.errno, error))
