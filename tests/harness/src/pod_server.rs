//! `portmap-pod serve`: the server of a pod. It replies to every request with its name and port.
//!
//! A request is a line on a TCP connection or a UDP datagram. The reply is one line: `pod-a 8080/TCP from 10.244.0.3:41000`. It
//! echoes the rest of a longer datagram. On a TCP connection the line `give 1000` gets 1000 bytes after the reply. An HTTP GET gets the same line as a response, so that curl works too. The server sends
//! nothing without a request, and never closes an idle connection. [`crate::pod_client`] is its client.

mod datagrams;

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::socket::{Backlog, MsgFlags, listen, recv};

use crate::listen::{Listen, Protocol};
use crate::pod_socket::{GIVE, pattern};

/// The line on standard output that reports that every port is open.
pub const READY: &str = "ready";

/// Serves until standard input ends. The address `::` serves IPv4 and IPv6.
///
/// With a pipe as standard input, the server ends with the process that holds the other end of the pipe.
pub fn serve(name: &str, address: IpAddr, listens: &[Listen]) -> Result<()> {
    let sockets = listens.iter().map(|listen| ServerSocket::bind(address, *listen)).collect::<Result<Vec<_>>>()?;
    for (socket, listen) in sockets.into_iter().zip(listens) {
        let identity = format!("{name} {listen}");
        thread::Builder::new().spawn(move || socket.serve(&identity)).context("failed to start a thread")?;
    }
    writeln!(io::stdout(), "{READY}").context("failed to print that the server is ready")?;
    io::copy(&mut io::stdin().lock(), &mut io::sink()).context("failed to read standard input")?;
    Ok(())
}

enum ServerSocket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl ServerSocket {
    fn bind(address: IpAddr, listen: Listen) -> Result<Self> {
        let address = SocketAddr::new(address, listen.port);
        let socket = match listen.protocol {
            Protocol::Tcp => listen_with_long_backlog(address).map(Self::Tcp),
            Protocol::Udp => datagrams::bind(address).map(Self::Udp),
        };
        socket.with_context(|| format!("failed to listen on {address}/{}", listen.protocol))
    }

    fn serve(&self, identity: &str) {
        match self {
            Self::Tcp(listener) => accept(listener, identity),
            Self::Udp(socket) => answer_datagrams(socket, identity),
        }
    }
}

/// Listens with the largest backlog; a second `listen()` changes it. The standard library's backlog of 128 overflows in a burst
/// of connections on a busy machine. A dropped connection then takes one second, until the next SYN.
fn listen_with_long_backlog(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listen(&listener, Backlog::MAXALLOWABLE)?;
    Ok(listener)
}

/// Serves each connection in a thread. Connections that the client has closed already get no thread, because benchmarks make
/// thousands of them.
fn accept(listener: &TcpListener, identity: &str) {
    loop {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                back_off(&error, identity);
                continue;
            }
        };
        if is_closed(&stream) {
            continue;
        }
        let answer = answer(identity, peer);
        // If no thread starts, dropping the stream closes the connection, and the client gets an error.
        if let Err(error) = thread::Builder::new().spawn(move || converse(&stream, &answer)) {
            back_off(&error, identity);
        }
    }
}

fn is_closed(stream: &TcpStream) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    match recv(stream.as_raw_fd(), &mut [0], flags) {
        Ok(received) => received == 0,
        Err(errno) => errno != Errno::EAGAIN,
    }
}

/// Replies to every line until the client closes the connection. After an HTTP response, the server closes it. An error ends
/// this connection only.
fn converse(stream: &TcpStream, answer: &str) -> io::Result<()> {
    let mut writer = stream;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        if line.starts_with("GET ") {
            // The kernel resets a connection that is closed with unread data, so the headers are read first.
            skip_headers(&mut reader)?;
            return writer.write_all(http_response(answer).as_bytes());
        }
        writer.write_all(answer.as_bytes())?;
        writer.write_all(&gift(&line))?;
        line.clear();
    }
    Ok(())
}

/// The bytes that a request line asks for, besides the reply.
fn gift(line: &str) -> Vec<u8> {
    let count = line.strip_prefix(GIVE).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    (0..count.unwrap_or(0)).map(pattern).collect()
}

fn skip_headers(reader: &mut BufReader<&TcpStream>) -> io::Result<()> {
    let mut header = String::new();
    while reader.read_line(&mut header)? > 0 && !header.trim_end().is_empty() {
        header.clear();
    }
    Ok(())
}

fn http_response(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

fn answer_datagrams(socket: &UdpSocket, identity: &str) {
    loop {
        if let Err(error) = datagrams::answer_one(socket, |peer| answer(identity, peer)) {
            back_off(&error, identity);
        }
    }
}

fn answer(identity: &str, peer: SocketAddr) -> String {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    format!("{identity} from {peer}\n")
}

/// Logs the error and waits 10 ms, so that repeated errors do not use the whole processor.
fn back_off(error: &io::Error, identity: &str) {
    eprintln!("{identity}: {error}");
    thread::sleep(Duration::from_millis(10));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_peer_is_named_as_ipv4() -> Result<()> {
        assert_eq!(answer("pod-a 80/TCP", "[::ffff:10.244.0.3]:4100".parse()?), "pod-a 80/TCP from 10.244.0.3:4100\n");
        assert_eq!(answer("pod-a 53/UDP", "[fd00::3]:4100".parse()?), "pod-a 53/UDP from [fd00::3]:4100\n");
        Ok(())
    }
}
