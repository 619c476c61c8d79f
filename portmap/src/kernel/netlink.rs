//! Requests to the kernel over netlink, and its answers: lists and changes of one network namespace.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// Messages are aligned to this number of bytes.
const ALIGNMENT: usize = 4;

/// A socket that asks the kernel. It belongs to the network namespace in which it was opened.
pub struct Connection(Socket);

impl Connection {
    /// Opens a socket of a netlink protocol, such as `NETLINK_ROUTE`, in the thread's network namespace.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Asks for a list, and returns its messages. A message that the library cannot parse is left out: kernels newer than the
    /// library send attributes that it does not know.
    pub fn list<M: NetlinkSerializable + NetlinkDeserializable>(&self, request: M) -> io::Result<Vec<M>> {
        self.send(NLM_F_DUMP, request)?;
        let mut messages = Vec::new();
        while !self.receive(&mut |message| messages.push(message))? {}
        Ok(messages)
    }

    /// Makes a change with these additional flags, such as `NLM_F_CREATE`. Fails with the kernel's error.
    pub fn change<M: NetlinkSerializable + NetlinkDeserializable>(&self, flags: u16, request: M) -> io::Result<()> {
        self.send(NLM_F_ACK | flags, request)?;
        while !self.receive::<M>(&mut drop)? {}
        Ok(())
    }

    fn send<M: NetlinkSerializable>(&self, flags: u16, request: M) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0).map(drop)
    }

    /// Receives some messages. Returns whether the answer ended with them.
    fn receive<M: NetlinkDeserializable>(&self, take: &mut impl FnMut(M)) -> io::Result<bool> {
        let (answer, _) = self.0.recv_from_full()?;
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            let length = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?.length();
            match NetlinkMessage::<M>::deserialize(rest).map(|message| message.payload) {
                Ok(NetlinkPayload::InnerMessage(message)) => take(message),
                Ok(NetlinkPayload::Done(done)) if done.code < 0 => return Err(io::Error::from_raw_os_error(-done.code)),
                Ok(NetlinkPayload::Error(error)) if error.code.is_some() => return Err(error.to_io()),
                Ok(NetlinkPayload::Done(_) | NetlinkPayload::Error(_)) => return Ok(true),
                Ok(_) => {}
                Err(error) => tracing::debug!("left out a message of netlink: {error}"),
            }
            let length = usize::try_from(length).map_err(io::Error::other)?.next_multiple_of(ALIGNMENT);
            rest = rest.get(length.max(ALIGNMENT)..).unwrap_or_default();
        }
        Ok(false)
    }
}
