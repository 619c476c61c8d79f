//! The only wrapper over `struct bpf_sock_addr`: what a client asked for, and where its call goes instead.
//!
//! The kernel keeps addresses and ports there in network byte order. They are converted here and nowhere else.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval},
    programs::SockAddrContext,
};
use portmap_common::{Address, Destination, FrontendKey, MAPPED, Neutral, TCP, UDP, V4, V6};

use crate::switches::HOST_NAMESPACE;

/// The state of a socket that is connected (`BPF_TCP_ESTABLISHED`), of UDP too.
const ESTABLISHED: u32 = 1;

/// No address: the unspecified one of IPv6.
pub const NO_ADDRESS: Neutral = [0; 4];

/// The calls that name a destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `connect()`
    Connect,
    /// `sendto()`, `sendmsg()`, `sendmmsg()`
    Send,
}

/// A client's socket in a system call that names, or is told, an address.
pub trait Socket {
    /// The family of the tables that know the address.
    type Address: Address;

    /// The loopback address.
    const LOOPBACK: Self::Address;

    /// The hook's context.
    fn context(&self) -> *mut bpf_sock_addr;

    /// The destination address.
    fn address(&self) -> Self::Address;

    /// Replaces the destination address.
    fn set_address(&self, address: Self::Address);

    /// The source address of the call, or [`NO_ADDRESS`] while the kernel has not chosen one. Not an `Option`: the compiler moves its
    /// value about where there is none, which the verifier rejects.
    fn source(&self, call: Call) -> Neutral;

    /// The hook's context, as the helpers' wrappers take it.
    #[inline(always)]
    fn as_context(&self) -> SockAddrContext {
        SockAddrContext::new(self.context())
    }

    /// The kernel's socket.
    #[inline(always)]
    fn kernel_socket(&self) -> *mut bpf_sock {
        // SAFETY: the kernel hands the hook a valid context.
        let union = unsafe { (*self.context()).__bindgen_anon_1 };
        // SAFETY: this is the field of the union that the kernel fills in.
        unsafe { union.sk }
    }

    /// The protocol's number.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a protocol's number has 8 bits")]
    fn protocol(&self) -> u8 {
        // SAFETY: the kernel hands the hook a valid context.
        unsafe { (*self.context()).protocol as u8 }
    }

    /// Whether it is connected.
    #[inline(always)]
    fn is_connected(&self) -> bool {
        let socket = self.kernel_socket();
        // SAFETY: the kernel hands the hook a valid socket.
        !socket.is_null() && unsafe { (*socket).state } == ESTABLISHED
    }

    /// The socket's `SO_PRIORITY`.
    #[inline(always)]
    fn priority(&self) -> u32 {
        let socket = self.kernel_socket();
        // SAFETY: the kernel hands the hook a valid socket.
        if socket.is_null() { 0 } else { unsafe { (*socket).priority } }
    }

    /// The socket's cookie: a number that no other socket has.
    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the helper takes this hook's context.
        unsafe { bpf_get_socket_cookie(self.context().cast()) }
    }

    /// The cookie of the client's network namespace: one for all processes of a pod.
    #[inline(always)]
    fn namespace(&self) -> u64 {
        // SAFETY: the helper takes this hook's context.
        unsafe { bpf_get_netns_cookie(self.context().cast()) }
    }

    /// Whether the client is in the host's network namespace.
    #[inline(always)]
    fn is_on_host(&self) -> bool {
        let host = match HOST_NAMESPACE.load() {
            // SAFETY: without a context the helper answers for the initial namespace.
            0 => unsafe { bpf_get_netns_cookie(core::ptr::null_mut()) },
            host => host,
        };
        self.namespace() == host
    }

    /// The destination, whatever its family.
    #[inline(always)]
    fn destination(&self) -> Destination {
        Destination { address: self.address().neutral(), port: u32::from(self.port()) }
    }

    /// The destination as a key of the tables, or none if the protocol is neither TCP nor UDP.
    #[inline(always)]
    fn frontend(&self) -> Option<FrontendKey<Self::Address>> {
        let protocol = self.protocol();
        matches!(protocol, TCP | UDP).then(|| FrontendKey::new(self.address(), self.port(), protocol))
    }

    /// The destination port, in host order.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the port is in the lower half")]
    fn port(&self) -> u16 {
        // SAFETY: the kernel hands the hook a valid context.
        u16::from_be(unsafe { (*self.context()).user_port } as u16)
    }

    /// Replaces the destination.
    #[inline(always)]
    fn redirect(&self, address: Self::Address, port: u16) {
        self.set_address(address);
        // SAFETY: the kernel hands the hook a valid context, and lets it write this field.
        unsafe { (*self.context()).user_port = u32::from(port.to_be()) };
    }

    /// Sets the error of a call that the hook fails: a negative errno. Kernel 5.18 and newer.
    #[inline(always)]
    fn fail_with(&self, error: i32) {
        // SAFETY: the helper takes no pointer.
        unsafe { bpf_set_retval(error) };
    }
}

/// A socket in a hook for IPv4 addresses.
pub struct Ipv4Socket(*mut bpf_sock_addr);

impl Ipv4Socket {
    /// The socket of a hook for IPv4 addresses.
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
        // SAFETY: the kernel hands the hook a valid context.
        unsafe { (*self.0).user_ip4 }.to_ne_bytes()
    }

    #[inline(always)]
    fn set_address(&self, address: V4) {
        // SAFETY: the kernel hands the hook a valid context, and lets it write this field.
        unsafe { (*self.0).user_ip4 = u32::from_ne_bytes(address) };
    }

    #[inline(always)]
    fn source(&self, call: Call) -> Neutral {
        match call {
            Call::Connect => bound_v4(self),
            // SAFETY: the kernel hands the hook a valid context, in which sending hooks find this field.
            Call::Send => settled_v4(unsafe { (*self.0).msg_src_ip4 }),
        }
    }
}

/// An `AF_INET6` socket that is given an IPv6 address.
pub struct Ipv6Socket(*mut bpf_sock_addr);

impl Ipv6Socket {
    /// The socket of a hook for IPv6 addresses.
    #[inline(always)]
    pub fn new(context: &SockAddrContext) -> Self {
        Self(context.sock_addr)
    }

    /// The same socket, if it is given an IPv4-mapped address: then the IPv4 tables know the destination.
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
        // SAFETY: the kernel hands the hook a valid context, in which sending hooks find this field.
        let sent_from = || unsafe { &raw const (*self.0).msg_src_ip6 };
        let socket = self.kernel_socket();
        // SAFETY: the kernel hands the hook a valid socket, if any.
        let bound_to = || unsafe { &raw const (*socket).src_ip6 };
        let words = match call {
            Call::Connect if socket.is_null() => return NO_ADDRESS,
            Call::Connect => bound_to().cast(),
            Call::Send => sent_from().cast(),
        };
        [read_word(words, 0), read_word(words, 1), read_word(words, 2), read_word(words, 3)]
    }
}

/// An `AF_INET6` socket that is given an IPv4-mapped address, `::ffff:a.b.c.d`.
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

    /// Datagrams to an IPv4-mapped address meet the hook for IPv4 addresses: only `connect()` comes here.
    #[inline(always)]
    fn source(&self, _: Call) -> Neutral {
        bound_v4(self)
    }
}

/// The IPv4 address that the socket is bound to.
#[inline(always)]
fn bound_v4<S: Socket>(socket: &S) -> Neutral {
    let socket = socket.kernel_socket();
    if socket.is_null() {
        return NO_ADDRESS;
    }
    // SAFETY: the kernel hands the hook a valid socket.
    settled_v4(unsafe { (*socket).src_ip4 })
}

#[inline(always)]
fn settled_v4(address: u32) -> Neutral {
    if address == 0 { NO_ADDRESS } else { address.to_ne_bytes().neutral() }
}

/// One 32-bit word of the IPv6 address.
#[inline(always)]
fn word(context: *mut bpf_sock_addr, index: usize) -> u32 {
    // SAFETY: the kernel hands the hook a valid context.
    read_word(unsafe { &raw const (*context).user_ip6 }.cast(), index)
}

/// One 32-bit word of an IPv6 address. Volatile: merged into a wider load, the verifier of older kernels rejects it.
#[inline(always)]
fn read_word(address: *const u32, index: usize) -> u32 {
    // SAFETY: the address has four words, and every caller names one of them.
    let word = unsafe { address.add(index) };
    // SAFETY: the field is valid, as its owner is.
    unsafe { word.read_volatile() }
}

/// Replaces one 32-bit word of the IPv6 address. Volatile for the same reason.
#[inline(always)]
fn set_word(context: *mut bpf_sock_addr, index: usize, value: u32) {
    // SAFETY: the kernel hands the hook a valid context.
    let address = unsafe { &raw mut (*context).user_ip6 };
    // SAFETY: the address has four words, and every caller names one of them.
    let word = unsafe { address.cast::<u32>().add(index) };
    // SAFETY: the kernel lets the hook write this field.
    unsafe { word.write_volatile(value) };
}
