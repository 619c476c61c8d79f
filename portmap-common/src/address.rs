//! IP addresses as the tables hold them: bytes in network order.

/// An IPv4 address, as in `[10, 96, 0, 10]`.
pub type V4 = [u8; 4];

/// An IPv6 address, in network order.
pub type V6 = [u8; 16];

/// What the tables need to know of an address family, so that all code over them is written once.
pub trait Address: Copy + Eq + Ord + core::hash::Hash + core::fmt::Debug + Send + Sync + 'static {
    /// The address as 32-bit words, in memory order.
    type Words: IntoIterator<Item = u32>;

    /// Splits the address into words, without a branch that the BPF verifier would have to follow.
    fn words(self) -> Self::Words;
}

impl Address for V4 {
    type Words = [u32; 1];

    #[inline]
    fn words(self) -> [u32; 1] {
        [u32::from_ne_bytes(self)]
    }
}

impl Address for V6 {
    type Words = [u32; 4];

    #[inline]
    fn words(self) -> [u32; 4] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self;
        [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_ne_bytes)
    }
}
