//! `portmap-pod connect`: sends several requests to an address, each through a new socket.
//!
//! It prints the replies of [`crate::pod_server`] and the errors, each with its count. Tests compare this output.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::listen::Protocol;

/// Name of the error if a connection or a reply exceeds the client's own time limit. `ETIMEDOUT` comes from the kernel.
pub const NO_ANSWER: &str = "no answer";

const REQUEST: &[u8] = b"who\n";

/// The replies and errors of a series of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Number of replies by pod and port, for example `pod-a 8080/TCP`.
    pub replies: BTreeMap<String, u32>,
    /// Number of errors by name, for example `ECONNREFUSED` or [`NO_ANSWER`].
    pub errors: BTreeMap<String, u32>,
}

impl Answers {
    /// Sends `count` requests. `patience` limits the time for the connection and again for the reply; it must not be zero.
    #[must_use]
    pub fn gather(address: SocketAddr, protocol: Protocol, count: u32, patience: Duration) -> Self {
        let mut answers = Self::default();
        for _ in 0..count {
            let answer = match protocol {
                Protocol::Tcp => ask_tcp(address, patience),
                Protocol::Udp => ask_udp(address, patience),
            };
            let times = match answer {
                Ok(line) => answers.replies.entry(identity(&line)),
                Err(error) => answers.errors.entry(name_of(&error)),
            };
            *times.or_default() += 1;
        }
        answers
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (outcome, count) in self.replies.iter().chain(&self.errors) {
            writeln!(f, "{count:>6}  {outcome}")?;
        }
        Ok(())
    }
}

fn ask_tcp(address: SocketAddr, patience: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(REQUEST)?;
    let mut line = String::new();
    if BufReader::new(stream).read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line)
}

fn ask_udp(address: SocketAddr, patience: Duration) -> io::Result<String> {
    let socket = connected_udp(address, patience)?;
    socket.send(REQUEST)?;
    let mut datagram = [0; 512];
    let length = socket.recv(&mut datagram)?;
    Ok(String::from_utf8_lossy(&datagram[..length]).into_owned())
}

/// A UDP socket that is connected to an address. `patience` limits each wait for a datagram; it must not be zero.
pub(crate) fn connected_udp(address: SocketAddr, patience: Duration) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(patience))?;
    Ok(socket)
}

/// The server's name and port in a reply, without the client's address, which differs between sockets.
pub(crate) fn identity(line: &str) -> String {
    let line = line.trim_end();
    line.split_once(" from ").map_or(line, |(identity, _)| identity).to_owned()
}

/// The name of an error, for example `ECONNREFUSED`. The name is [`NO_ANSWER`] if the client's own time limit has passed. An
/// error that is not from the kernel gets a description of its kind.
pub(crate) fn name_of(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN) => NO_ANSWER.to_owned(),
        Some(errno) => format!("{errno:?}"),
        None if error.kind() == io::ErrorKind::TimedOut => NO_ANSWER.to_owned(),
        None => error.kind().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use anyhow::Result;

    use super::*;

    #[test]
    fn answers_are_counted_without_the_peer() {
        assert_eq!(identity("pod-a 8080/TCP from 10.244.0.3:4100\n"), "pod-a 8080/TCP");
        assert_eq!(identity("something else\n"), "something else");
    }

    #[test]
    fn our_patience_is_not_the_kernels_verdict() {
        assert_eq!(name_of(&io::Error::from_raw_os_error(Errno::ETIMEDOUT as i32)), "ETIMEDOUT");
        assert_eq!(name_of(&io::Error::from_raw_os_error(Errno::EAGAIN as i32)), NO_ANSWER);
        assert_eq!(name_of(&io::ErrorKind::TimedOut.into()), NO_ANSWER);
    }

    #[test]
    fn silence_and_refusal_are_told_apart() -> Result<()> {
        let silent = TcpListener::bind("127.0.0.1:0")?;
        let address = silent.local_addr()?;
        let patience = Duration::from_millis(20);
        assert_eq!(Answers::gather(address, Protocol::Tcp, 2, patience).errors, [(NO_ANSWER.to_owned(), 2)].into());
        drop(silent);
        let refused = [("ECONNREFUSED".to_owned(), 3)].into();
        assert_eq!(Answers::gather(address, Protocol::Tcp, 3, patience).errors, refused);
        Ok(())
    }
}
