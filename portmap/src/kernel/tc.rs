//! BPF filters of `tc` at the queueing discipline `clsact`, for kernels without TCX links (before 6.6).

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage as Message,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::Connection;

/// The name of the queueing discipline.
const CLSACT: &str = "clsact";

/// Packets of all protocols (`ETH_P_ALL`).
const ALL_PROTOCOLS: u16 = 3;

/// The direction of packets at a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Packets that the device has received.
    Ingress,
    /// Packets that the device is about to send.
    Egress,
}

/// The place of a filter: only one filter of a device and direction can have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterPlace {
    /// The priority: filters with smaller numbers run first.
    pub priority: u16,
    /// The handle among the filters of this priority.
    pub handle: u32,
}

/// A BPF filter at `clsact`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The priority and handle.
    pub place: FilterPlace,
    /// The name that its owner gave to it.
    pub name: String,
}

/// The requests about filters, in one network namespace.
pub struct Filters(Connection);

impl Filters {
    /// Opens a socket in the thread's network namespace.
    pub fn open() -> io::Result<Self> {
        Connection::open(NETLINK_ROUTE).map(Self)
    }

    /// The indexes of the devices with `clsact`.
    pub fn devices(&self) -> io::Result<Vec<u32>> {
        let found = self.0.list(Message::GetQueueDiscipline(TcMessage::default()))?;
        let device = |message| {
            let Message::NewQueueDiscipline(TcMessage { header, attributes, .. }) = message else { return None };
            let is_clsact = attributes.iter().any(|it| matches!(it, TcAttribute::Kind(kind) if kind == CLSACT));
            is_clsact.then_some(header.index.cast_unsigned())
        };
        Ok(found.into_iter().filter_map(device).collect())
    }

    /// Adds `clsact` to a device, unless it is there.
    pub fn prepare(&self, device: u32) -> io::Result<()> {
        let header = TcHeader {
            index: device.cast_signed(),
            handle: TcHandle { major: TcHandle::CLSACT.major, minor: 0 },
            parent: TcHandle::CLSACT,
            ..TcHeader::default()
        };
        let message = TcMessage::from_parts(header, vec![TcAttribute::Kind(CLSACT.to_owned())]);
        match self.0.change(NLM_F_CREATE | NLM_F_EXCL, Message::NewQueueDiscipline(message)) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    /// The BPF filters of a device. None without `clsact`, and for a device that does not exist.
    pub fn list(&self, device: u32, direction: Direction) -> io::Result<Vec<Filter>> {
        let request = TcMessage::from_parts(header(device, direction, None), Vec::new());
        let found = self.0.list(Message::GetTrafficFilter(request))?;
        Ok(found.into_iter().filter_map(filter).collect())
    }

    /// Makes a filter run a program, with the return values as verdicts (`direct-action`). A BPF filter with this place is
    /// replaced: each packet meets either the old program or the new one.
    pub fn set(&self, device: u32, direction: Direction, filter: &Filter, program: BorrowedFd<'_>) -> io::Result<()> {
        let options = [
            TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned()),
            TcFilterBpfOption::ProgName(filter.name.clone()),
            TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
        ];
        let attributes =
            vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned()), TcAttribute::Options(options.map(TcOption::Bpf).into())];
        let message = TcMessage::from_parts(header(device, direction, Some(filter.place)), attributes);
        self.0.change(NLM_F_CREATE, Message::NewTrafficFilter(message))
    }

    /// Removes the BPF filter with this place. Succeeds if there is none, or if the device does not exist.
    pub fn remove(&self, device: u32, direction: Direction, place: FilterPlace) -> io::Result<()> {
        let attributes = vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())];
        let message = TcMessage::from_parts(header(device, direction, Some(place)), attributes);
        match self.0.change(0, Message::DelTrafficFilter(message)) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
            result => result,
        }
    }
}

/// The header of a request about one filter, or about all filters of a direction.
fn header(device: u32, direction: Direction, place: Option<FilterPlace>) -> TcHeader {
    let minor = match direction {
        Direction::Ingress => TcHandle::MIN_INGRESS,
        Direction::Egress => TcHandle::MIN_EGRESS,
    };
    let mut header = TcHeader {
        index: device.cast_signed(),
        parent: TcHandle { major: TcHandle::CLSACT.major, minor },
        ..TcHeader::default()
    };
    if let Some(FilterPlace { priority, handle }) = place {
        header.handle = handle.into();
        header.info = u32::from(priority) << 16 | u32::from(ALL_PROTOCOLS.to_be());
    }
    header
}

/// The BPF filter in a message. None for filters of other kinds, and for the message that begins the list of a priority.
fn filter(message: Message) -> Option<Filter> {
    let Message::NewTrafficFilter(TcMessage { header, attributes, .. }) = message else { return None };
    let options =
        attributes.into_iter().find_map(|it| if let TcAttribute::Options(options) = it { Some(options) } else { None });
    let name = options?
        .into_iter()
        .find_map(|option| if let TcOption::Bpf(TcFilterBpfOption::ProgName(name)) = option { Some(name) } else { None })?;
    let priority = u16::try_from(header.info >> 16).ok()?;
    Some(Filter { place: FilterPlace { priority, handle: header.handle.into() }, name })
}
