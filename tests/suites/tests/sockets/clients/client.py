"""A client as people write them with asyncio. Each line of its output is one answer."""

import asyncio
import sys


async def stream(host, port):
    """With a name of both families this is the race that is called happy eyeballs."""
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
    """A datagram endpoint with a remote address is a connected socket."""
    loop = asyncio.get_running_loop()
    transport, asker = await loop.create_datagram_endpoint(Asker, remote_addr=(host, port))
    transport.sendto(b"who\n")
    print(*await asyncio.wait_for(asker.answers.get(), 5))
    print(transport.get_extra_info("peername")[:2])
    transport.close()


async def unconnected(host, port):
    """Without one it is not, and tells senders apart."""
    loop = asyncio.get_running_loop()
    local = "::" if ":" in host else "0.0.0.0"
    transport, asker = await loop.create_datagram_endpoint(Asker, local_addr=(local, 0))
    for _ in range(3):
        transport.sendto(b"who\n", (host, port))
        print(*await asyncio.wait_for(asker.answers.get(), 5))
    transport.close()


kind, host, port = sys.argv[1:]
asyncio.run(asyncio.wait_for({"stream": stream, "connected": connected, "unconnected": unconnected}[kind](host, int(port)), 10))
