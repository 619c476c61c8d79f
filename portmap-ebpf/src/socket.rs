//! The only wrapper of `struct bpf_sock_addr`, the context of a hook: reads the destination of a call, and replaces it. The
//! first and the last step of a call.
//!
//! Addresses and ports are in network byte order in the context. Ports are converted to host order here and nowhere else.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval},
    programs::SockAddrContext,
};
use portmap_common::{Address, Destination, FrontendKey, MAPPED, Neutral, TCP, UDP, V4, V6};

use crate::switches::HOST_NAMESPACE;

/// The state of a connected socket, TCP or UDP (`BPF_TCP_ESTABLISHED`).
const ESTABLISHED: u32 = 1;

/// Stands for a missing address: the unspecified address of IPv6, `::`.
pub const NO_ADDRESS: Neutral = [0; 4];

/// The calls that name a destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `connect()`, of TCP or UDP.
    Connect,
    /// `sendto()`, `sendmsg()` or `sendmmsg()` of a UDP datagram with an address. Also a datagram without an address from a
    /// connected `AF_INET6` socket whose peer is IPv4-mapped: the kernel passes the peer.
    Send,
}

/// A client's socket in a system call that passes an address to the kernel, or returns one from it.
pub trait Socket {
    /// The address family whose tables are used for the destination.
    type Address: Address;

    /// The loopback address of the family, to which refused TCP connections go on kernels before 5.18.
    const LOOPBACK: Self::Address;

    /// The hook's context, valid until the program returns.
    fn context(&self) -> *mut bpf_sock_addr;

    /// The address in the context: the destination, or the sender or peer in hooks for received addresses.
    fn address(&self) -> Self::Address;

    /// Replaces the address in the context, which the kernel uses after the hook or returns to the process.
    fn set_address(&self, address: Self::Address);

    /// The source address of the call; [`NO_ADDRESS`] while neither the process nor the kernel has chosen one. Not an `Option`:
    /// the compiler copies its value even for `None`, and verifiers before 6.3 reject that.
    fn source(&self, call: Call) -> Neutral;

    /// The hook's context in the type that aya's wrappers take.
    #[inline(always)]
    fn as_context(&self) -> SockAddrContext {
        SockAddrContext::new(self.context())
    }

    /// The kernel's socket; may be null.
    #[inline(always)]
    fn kernel_socket(&self) -> *mut bpf_sock {
        // SAFETY: the kernel gives the hook a valid context.
        let union = unsafe { (*self.context()).__bindgen_anon_1 };
        // SAFETY: `sk` is the field of the union that the kernel sets.
        unsafe { union.sk }
    }

    /// The protocol's number: `IPPROTO_TCP`, `IPPROTO_UDP` or another.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a protocol's number has 8 bits")]
    fn protocol(&self) -> u8 {
        // SAFETY: the kernel gives the hook a valid context.
        unsafe { (*self.context()).protocol as u8 }
    }

    /// Whether the socket's state is established, as for every connected UDP socket; false without a kernel socket.
    #[inline(always)]
    fn is_connected(&self) -> bool {
        let socket = self.kernel_socket();
        // SAFETY: the kernel gives the hook a valid socket.
        !socket.is_null() && unsafe { (*socket).state } == ESTABLISHED
    }

    /// The socket's `SO_PRIORITY`; 0 without a kernel socket.
    #[inline(always)]
    fn priority(&self) -> u32 {
        let socket = self.kernel_socket();
        // SAFETY: the kernel gives the hook a valid socket.
        if socket.is_null() { 0 } else { unsafe { (*socket).priority } }
    }

    /// The socket's cookie: a number that is unique until reboot.
    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the helper takes this hook's context.
        unsafe { bpf_get_socket_cookie(self.context().cast()) }
    }

    /// The cookie of the socket's network namespace, which all processes of a pod normally share.
    #[inline(always)]
    fn namespace(&self) -> u64 {
        // SAFETY: the helper takes this hook's context.
        unsafe { bpf_get_netns_cookie(self.context().cast()) }
    }

    /// Whether the socket is in the host's network namespace.
    #[inline(always)]
    fn is_on_host(&self) -> bool {
        let host = match HOST_NAMESPACE.load() {
            // SAFETY: the helper accepts null, and then returns the cookie of the initial namespace.
            0 => unsafe { bpf_get_netns_cookie(core::ptr::null_mut()) },
            host => host,
        };
        self.namespace() == host
    }

    /// The address in the context, converted to a [`Neutral`], and the port.
    #[inline(always)]
    fn destination(&self) -> Destination {
        Destination { address: self.address().neutral(), port: u32::from(self.port()) }
    }

    /// The destination as a key of FRONTENDS; `None` if the protocol is neither TCP nor UDP.
    #[inline(always)]
    fn frontend(&self) -> Option<FrontendKey<Self::Address>> {
        let protocol = self.protocol();
        matches!(protocol, TCP | UDP).then(|| FrontendKey::new(self.address(), self.port(), protocol))
    }

    /// The port in the context, in host order: of the destination, or of the sender or peer in hooks for received addresses.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the port is in the lower half")]
    fn port(&self) -> u16 {
        // SAFETY: the kernel gives the hook a valid context.
        u16::from_be(unsafe { (*self.context()).user_port } as u16)
    }

    /// Replaces the address and port in the context. The port is in host order.
    #[inline(always)]
    fn redirect(&self, address: Self::Address, port: u16) {
        self.set_address(address);
        // SAFETY: the kernel gives the hook a valid context, and lets it write this field.
        unsafe { (*self.context()).user_port = u32::from(port.to_be()) };
    }

    /// Sets the error, a negative errno, of a call that the hook fails. Kernel 5.18 and newer.
    #[inline(always)]
    fn fail_with(&self, error: i32) {
        // SAFETY: the helper takes no pointer.
        unsafe { bpf_set_retval(error) };
    }
}

/// A socket in a hook for IPv4 addresses: `AF_INET`, or `AF_INET6` that sends to an IPv4-mapped address.
pub struct Ipv4Socket(*mut bpf_sock_addr);

impl Ipv4Socket {
    /// Wraps the context of a hook for IPv4 addresses.
    #[inline(always)]
    pub fn new(context: &SockAddrContext) -> Self {
        Self(context.sock_addr)
    }
}

impl Socket for Ipv4Socket {
    type Address = V4;

    const LOOPBACK: V4 = [127, 0, 0, 1];

    #[inline(always)]
    fn context(&self) -> *mut bpf_sock_addr {
        self.0
    }

    #[inline(always)]
    fn address(&self) -> V4 {
        // SAFETY: the kernel gives the hook a valid context.
        unsafe { (*self.0).user_ip4 }.to_ne_bytes()
    }

    #[inline(always)]
    fn set_address(&self, address: V4) {
        // SAFETY: the kernel gives the hook a valid context, and lets it write this field.
        unsafe { (*self.0).user_ip4 = u32::from_ne_bytes(address) };
    }

    #[inline(always)]
    fn source(&self, call: Call) -> Neutral {
        match call {
            Call::Connect => bound_v4(self),
            // SAFETY: the kernel gives the hook a valid context, and sets this field for sending hooks.
            Call::Send => neutral_v4(unsafe { (*self.0).msg_src_ip4 }),
        }
    }
}

/// An `AF_INET6` socket in a hook for IPv6 addresses.
pub struct Ipv6Socket(*mut bpf_sock_addr);

impl Ipv6Socket {
    /// Wraps the context of a hook for IPv6 addresses.
    #[inline(always)]
    pub fn new(context: &SockAddrContext) -> Self {
        Self(context.sock_addr)
    }

    /// The same socket as a [`MappedSocket`], which uses the IPv4 tables; `None` unless the address is IPv4-mapped.
    #[inline(always)]
    pub fn mapped(&self) -> Option<MappedSocket> {
        let is_mapped = word(self.0, 0) == MAPPED[0] && word(self.0, 1) == MAPPED[1] && word(self.0, 2) == MAPPED[2];
        is_mapped.then_some(MappedSocket(self.0))
    }
}

impl Socket for Ipv6Socket {
    type Address = V6;

    const LOOPBACK: V6 = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    #[inline(always)]
    fn context(&self) -> *mut bpf_sock_addr {
        self.0
    }

    #[inline(always)]
    fn address(&self) -> V6 {
        V6::from_neutral([word(self.0, 0), word(self.0, 1), word(self.0, 2), word(self.0, 3)])
    }

    #[inline(always)]
    fn set_address(&self, address: V6) {
        let [a, b, c, d] = address.words();
        set_word(self.0, 0, a);
        set_word(self.0, 1, b);
        set_word(self.0, 2, c);
        set_word(self.0, 3, d);
    }

    #[inline(always)]
    fn source(&self, call: Call) -> Neutral {
        // SAFETY: the kernel gives the hook a valid context, and sets this field for sending hooks.
        let sent_from = || unsafe { &raw const (*self.0).msg_src_ip6 };
        let socket = self.kernel_socket();
        // SAFETY: called below only if the socket is not null, and then it is valid.
        let bound_to = || unsafe { &raw const (*socket).src_ip6 };
        let words = match call {
            Call::Connect if socket.is_null() => return NO_ADDRESS,
            Call::Connect => bound_to().cast(),
            Call::Send => sent_from().cast(),
        };
        [read_word(words, 0), read_word(words, 1), read_word(words, 2), read_word(words, 3)]
    }
}

/// An `AF_INET6` socket in a hook for IPv6 addresses, if the address is IPv4-mapped: `::ffff:a.b.c.d`.
pub struct MappedSocket(*mut bpf_sock_addr);

impl Socket for MappedSocket {
    type Address = V4;

    const LOOPBACK: V4 = Ipv4Socket::LOOPBACK;

    #[inline(always)]
    fn context(&self) -> *mut bpf_sock_addr {
        self.0
    }

    #[inline(always)]
    fn address(&self) -> V4 {
        word(self.0, 3).to_ne_bytes()
    }

    #[inline(always)]
    fn set_address(&self, address: V4) {
        set_word(self.0, 3, u32::from_ne_bytes(address));
    }

    /// Only called for `connect()`: for datagrams to IPv4-mapped addresses, the kernel calls the hook for IPv4 addresses.
    #[inline(always)]
    fn source(&self, _: Call) -> Neutral {
        bound_v4(self)
    }
}

/// The IPv4 address that the socket is bound to, by the process or by an earlier connection; [`NO_ADDRESS`] if there is none.
#[inline(always)]
fn bound_v4<S: Socket>(socket: &S) -> Neutral {
    let socket = socket.kernel_socket();
    if socket.is_null() {
        return NO_ADDRESS;
    }
    // SAFETY: the kernel gives the hook a valid socket.
    neutral_v4(unsafe { (*socket).src_ip4 })
}

/// The IPv4 address of a field in the kernel, in network order; [`NO_ADDRESS`] for 0.0.0.0.
#[inline(always)]
fn neutral_v4(address: u32) -> Neutral {
    if address == 0 { NO_ADDRESS } else { address.to_ne_bytes().neutral() }
}

/// One 32-bit word of the IPv6 address in the context.
#[inline(always)]
fn word(context: *mut bpf_sock_addr, index: usize) -> u32 {
    // SAFETY: the kernel gives the hook a valid context.
    read_word(unsafe { &raw const (*context).user_ip6 }.cast(), index)
}

/// One 32-bit word of an IPv6 address. Volatile, so that the compiler does not merge two loads: the verifier of older kernels
/// rejects wider loads.
#[inline(always)]
fn read_word(address: *const u32, index: usize) -> u32 {
    // SAFETY: the address has four words, and every caller passes an index below 4.
    let word = unsafe { address.add(index) };
    // SAFETY: the word is a field of the context or the socket, and both are valid.
    unsafe { word.read_volatile() }
}

/// Replaces one 32-bit word of the IPv6 address in the context. Volatile for the same reason as [`read_word`].
#[inline(always)]
fn set_word(context: *mut bpf_sock_addr, index: usize, value: u32) {
    // SAFETY: the kernel gives the hook a valid context.
    let address = unsafe { &raw mut (*context).user_ip6 };
    // SAFETY: the address has four words, and every caller passes an index below 4.
    let word = unsafe { address.cast::<u32>().add(index) };
    // SAFETY: the kernel lets the hook write this field.
    unsafe { word.write_volatile(value) };
}
