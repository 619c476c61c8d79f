"""A client that uses asyncio. Each answer is a line with its source. `connected` also prints the peer's address."""

import asyncio
import sys


async def stream(host, port):
    """Connects by TCP. A host name with IPv4 and IPv6 addresses starts happy eyeballs (RFC 8305)."""
    reader, writer = await asyncio.open_connection(host, port, happy_eyeballs_delay=0.25)
    writer.write(b"who\n")
    answer = (await reader.readline()).decode().strip()
    print(writer.get_extra_info("peername")[:2], answer)
    writer.close()


class Asker(asyncio.DatagramProtocol):
    def __init__(self):
        self.answers = asyncio.Queue()

    def datagram_received(self, data, addr):
        self.answers.put_nowait((addr[:2], data.decode().strip()))

    def error_received(self, exc):
        self.answers.put_nowait((type(exc).__name__, ""))


async def connected(host, port):
    """Sends one datagram. A datagram endpoint of asyncio with a remote address is a connected socket."""
    loop = asyncio.get_running_loop()
    transport, asker = await loop.create_datagram_endpoint(Asker, remote_addr=(host, port))
    transport.sendto(b"who\n")
    print(*await asyncio.wait_for(asker.answers.get(), 5))
    print(transport.get_extra_info("peername")[:2])
    transport.close()


async def unconnected(host, port):
    """Sends three datagrams. Without a remote address the socket is unconnected, and each answer has its source."""
    loop = asyncio.get_running_loop()
    local = "::" if ":" in host else "0.0.0.0"
    transport, asker = await loop.create_datagram_endpoint(Asker, local_addr=(local, 0))
    for _ in range(3):
        transport.sendto(b"who\n", (host, port))
        print(*await asyncio.wait_for(asker.answers.get(), 5))
    transport.close()


kind, host, port = sys.argv[1:]
asyncio.run(asyncio.wait_for({"stream": stream, "connected": connected, "unconnected": unconnected}[kind](host, int(port)), 10))
