//! The only wrapper over `struct bpf_sock_addr`: what a client asked for, and where its call goes instead.
//!
//! The kernel keeps addresses and ports there in network byte order. They are converted here and nowhere else.

use aya_ebpf::{bindings::bpf_sock_addr, helpers::generated::bpf_set_retval, programs::SockAddrContext};
use portmap_common::{Address, Frontend, TCP, UDP, V4, V6};

/// `::ffff:0:0/96`, the IPv4-mapped addresses, as words in memory order.
const MAPPED: [u32; 3] = [0, 0, 0xffff_u32.to_be()];

/// A client's socket in a system call that names a destination.
pub trait Socket {
    /// The family of the tables that know the destination.
    type Address: Address;

    /// The hook's context.
    fn context(&self) -> *mut bpf_sock_addr;

    /// The destination address.
    fn address(&self) -> Self::Address;

    /// Replaces the destination address.
    fn set_address(&self, address: Self::Address);

    /// The destination as a key of the tables, or none if the protocol is neither TCP nor UDP.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a protocol's number has 8 bits")]
    fn frontend(&self) -> Option<Frontend<Self::Address>> {
        // SAFETY: the kernel hands the hook a valid context.
        let protocol = unsafe { (*self.context()).protocol } as u8;
        matches!(protocol, TCP | UDP).then(|| Frontend::new(self.address(), self.port(), protocol))
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

/// An `AF_INET` socket.
pub struct Ipv4Socket(*mut bpf_sock_addr);

impl Ipv4Socket {
    /// The socket of a `connect4` hook.
    #[inline(always)]
    pub fn new(context: &SockAddrContext) -> Self {
        Self(context.sock_addr)
    }
}

impl Socket for Ipv4Socket {
    type Address = V4;

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
}

/// An `AF_INET6` socket that is given an IPv6 address.
pub struct Ipv6Socket(*mut bpf_sock_addr);

impl Ipv6Socket {
    /// The socket of a `connect6` hook.
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

    #[inline(always)]
    fn context(&self) -> *mut bpf_sock_addr {
        self.0
    }

    #[inline(always)]
    fn address(&self) -> V6 {
        let [a, b, c, d] = word(self.0, 0).to_ne_bytes();
        let [e, f, g, h] = word(self.0, 1).to_ne_bytes();
        let [i, j, k, l] = word(self.0, 2).to_ne_bytes();
        let [m, n, o, p] = word(self.0, 3).to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    #[inline(always)]
    fn set_address(&self, address: V6) {
        let [a, b, c, d] = address.words();
        set_word(self.0, 0, a);
        set_word(self.0, 1, b);
        set_word(self.0, 2, c);
        set_word(self.0, 3, d);
    }
}

/// An `AF_INET6` socket that is given an IPv4-mapped address, `::ffff:a.b.c.d`.
pub struct MappedSocket(*mut bpf_sock_addr);

impl Socket for MappedSocket {
    type Address = V4;

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
}

/// One 32-bit word of the IPv6 address. Volatile: merged into a wider load, the verifier of older kernels rejects it.
#[inline(always)]
fn word(context: *mut bpf_sock_addr, index: usize) -> u32 {
    // SAFETY: the kernel hands the hook a valid context.
    let address = unsafe { &raw const (*context).user_ip6 };
    // SAFETY: the address has four words, and every caller names one of them.
    let word = unsafe { address.cast::<u32>().add(index) };
    // SAFETY: the field is valid, as above.
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
