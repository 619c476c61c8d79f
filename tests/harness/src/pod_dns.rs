//! `portmap-pod dns`: a small name server on UDP and TCP, for tests with unmodified resolvers.
//!
//! It serves the names of its arguments, and `who.`, whose TXT record is the pod's name. `long.` has the same record, but its
//! UDP response is truncated: the client must ask again through TCP (RFC 1035, 4.2).

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::str::FromStr;
use std::thread;

use anyhow::{Context as _, Result};

use crate::listen::Protocol;
use crate::pod_server::READY;

const HEADER: usize = 12;
/// Flags of an authoritative response, with recursion desired and available. Without the recursion flags some clients print a
/// warning.
const RESPONSE: u16 = 0x8580;
const TRUNCATED: u16 = 0x0200;
const NO_SUCH_NAME: u16 = 3;
const A: u16 = 1;
const TXT: u16 = 16;
const AAAA: u16 = 28;

/// A name and one of its addresses. Text format: `web.example=10.96.0.10`.
#[derive(Clone, Debug)]
pub struct Record {
    name: String,
    address: IpAddr,
}

impl FromStr for Record {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, address) = text.split_once('=').with_context(|| format!("`{text}` is not a record: write NAME=ADDRESS"))?;
        let address = address.parse().with_context(|| format!("`{address}` is not an IP address"))?;
        Ok(Self { name: name.to_ascii_lowercase(), address })
    }
}

/// Serves the records on this port of all local addresses, UDP and TCP, until standard input ends.
pub fn serve(pod: &str, port: u16, records: Vec<Record>) -> Result<()> {
    let listener =
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).with_context(|| format!("failed to listen on {port}/TCP"))?;
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).with_context(|| format!("failed to listen on {port}/UDP"))?;
    let zone = Zone { pod: pod.to_owned(), records };
    let over_tcp = zone.clone();
    thread::Builder::new().spawn(move || over_tcp.answer_connections(&listener)).context("failed to start a thread")?;
    thread::Builder::new().spawn(move || zone.answer_datagrams(&socket)).context("failed to start a thread")?;
    writeln!(io::stdout(), "{READY}").context("failed to print that the server is ready")?;
    io::copy(&mut io::stdin().lock(), &mut io::sink()).context("failed to read standard input")?;
    Ok(())
}

#[derive(Clone)]
struct Zone {
    pod: String,
    records: Vec<Record>,
}

impl Zone {
    fn answer_datagrams(&self, socket: &UdpSocket) {
        let mut query = [0; 512];
        loop {
            let answered = socket.recv_from(&mut query).and_then(|(length, peer)| {
                let answer = query.get(..length).and_then(|query| self.answer(query, Protocol::Udp));
                answer.map_or(Ok(0), |answer| socket.send_to(&answer, peer))
            });
            if let Err(error) = answered {
                eprintln!("{}: {error}", self.pod);
            }
        }
    }

    fn answer_connections(&self, listener: &TcpListener) {
        for stream in listener.incoming() {
            if let Err(error) = stream.and_then(|stream| self.answer_connection(stream)) {
                eprintln!("{}: {error}", self.pod);
            }
        }
    }

    /// Answers one query per connection. A length of two bytes precedes each message.
    fn answer_connection(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut query)?;
        let answer = self.answer(&query, Protocol::Tcp).ok_or(io::ErrorKind::InvalidData)?;
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&length.to_be_bytes())?;
        stream.write_all(&answer)
    }

    /// The response to a query, or `None` if the message is malformed.
    fn answer(&self, query: &[u8], protocol: Protocol) -> Option<Vec<u8>> {
        let (name, kind, question) = question(query)?;
        let data = self.data(&name, kind);
        let is_too_long = name == "long" && protocol == Protocol::Udp;
        let flags = match &data {
            None => RESPONSE | NO_SUCH_NAME,
            Some(_) if is_too_long => RESPONSE | TRUNCATED,
            Some(_) => RESPONSE,
        };
        let data = data.filter(|_| !is_too_long).unwrap_or_default();
        let mut answer = query.get(..2)?.to_vec();
        for number in [flags, 1, u16::try_from(data.len()).ok()?, 0, 0] {
            answer.extend(number.to_be_bytes());
        }
        answer.extend(question);
        for data in data {
            // A pointer to the name in the question (offset 12), then the type, the class IN and a time to live of 0.
            answer.extend([0xc0, 0x0c]);
            answer.extend(kind.to_be_bytes());
            answer.extend([0, 1, 0, 0, 0, 0]);
            answer.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
            answer.extend(data);
        }
        Some(answer)
    }

    /// The data of the records with this name and type. `None` if the name does not exist.
    fn data(&self, name: &str, kind: u16) -> Option<Vec<Vec<u8>>> {
        if name == "who" || name == "long" {
            let text = u8::try_from(self.pod.len()).ok().map(|length| [&[length], self.pod.as_bytes()].concat());
            return Some(text.filter(|_| kind == TXT).into_iter().collect());
        }
        let mut addresses = self.records.iter().filter(|record| record.name == name).map(|record| record.address).peekable();
        addresses.peek()?;
        let data = addresses.filter_map(|address| match address {
            IpAddr::V4(address) => (kind == A).then(|| address.octets().to_vec()),
            IpAddr::V6(address) => (kind == AAAA).then(|| address.octets().to_vec()),
        });
        Some(data.collect())
    }
}

/// Parses the first question of a query: the name without its last dot, the record type, and the bytes of the question. `None`
/// if the query is too short.
fn question(query: &[u8]) -> Option<(String, u16, &[u8])> {
    let questions = query.get(HEADER..)?;
    let mut labels = Vec::new();
    let mut at = 0;
    loop {
        let length = usize::from(*questions.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(questions.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(questions.get(at..at + 2)?.try_into().ok()?);
    Some((labels.join("."), kind, questions.get(..at + 4)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut query = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend(label.bytes());
        }
        query.extend([0, 0, u8::try_from(kind).unwrap(), 0, 1]);
        query
    }

    #[test]
    fn queries_are_answered() {
        let zone = Zone { pod: "a".into(), records: vec!["web.example=10.96.0.10".parse().unwrap()] };
        let answer = zone.answer(&query("Web.example", A), Protocol::Udp).unwrap();
        assert!(answer.starts_with(&[7, 9, 0x85, 0x80, 0, 1, 0, 1]) && answer.ends_with(&[0, 4, 10, 96, 0, 10]), "{answer:?}");
        let of = |name, kind, protocol| zone.answer(&query(name, kind), protocol).unwrap()[2..8].to_vec();
        assert_eq!(of("web.example", AAAA, Protocol::Udp), [0x85, 0x80, 0, 1, 0, 0]);
        assert_eq!(of("nobody.example", A, Protocol::Udp), [0x85, 0x83, 0, 1, 0, 0]);
        assert_eq!(of("long", TXT, Protocol::Udp), [0x87, 0x80, 0, 1, 0, 0]);
        assert_eq!(of("long", TXT, Protocol::Tcp), [0x85, 0x80, 0, 1, 0, 1]);
        assert_eq!(zone.answer(&[0; 12], Protocol::Udp), None);
    }
}
