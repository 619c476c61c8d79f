//! IP addresses as the maps hold them: bytes in network order. The maps SOCKETS and DATAGRAMS hold both families in one
//! form, [`Neutral`].
//!
//! The arithmetic is on 32-bit words and has few branches, because the BPF verifier follows each branch.

/// An IPv4 address in network order: 10.96.0.10 is `[10, 96, 0, 10]`.
pub type V4 = [u8; 4];

/// An IPv6 address, in network order.
pub type V6 = [u8; 16];

/// The operations of an address family. Code that reads or writes the tables is generic over this trait, so it is written
/// once for IPv4 and IPv6.
pub trait Address: Copy + Default + Eq + Ord + core::hash::Hash + core::fmt::Debug + Send + Sync + 'static {
    /// The address as 32-bit words, in memory order.
    type Words: IntoIterator<Item = u32>;

    /// Splits the address into words, without a branch.
    fn words(self) -> Self::Words;

    /// Converts to a [`Neutral`]: an IPv4 address becomes IPv4-mapped (`::ffff:a.b.c.d`), an IPv6 address keeps its words.
    fn neutral(self) -> Neutral;

    /// Converts a neutral address to this family. For IPv4, it must be IPv4-mapped, because only its last word is used.
    fn from_neutral(address: Neutral) -> Self;

    /// Whether the neutral address is of this family. IPv4-mapped addresses are IPv4.
    fn is_family_of(address: Neutral) -> bool;

    /// Whether the address is in the range: its bits under `mask` are equal to `prefix`.
    fn lies_in(self, prefix: Self, mask: Self) -> bool;
}

/// An address of either family as 32-bit words in memory order: IPv6, or IPv4-mapped.
pub type Neutral = [u32; 4];

/// The first three words of every IPv4-mapped address (`::ffff:0:0/96`). The fourth word is the IPv4 address.
pub const MAPPED: [u32; 3] = [0, 0, 0xffff_u32.to_be()];

impl Address for V4 {
    type Words = [u32; 1];

    #[inline]
    fn words(self) -> [u32; 1] {
        [u32::from_ne_bytes(self)]
    }

    #[inline]
    fn neutral(self) -> Neutral {
        let [a, b, c] = MAPPED;
        [a, b, c, u32::from_ne_bytes(self)]
    }

    #[inline]
    fn from_neutral([_, _, _, address]: Neutral) -> Self {
        address.to_ne_bytes()
    }

    #[inline]
    fn is_family_of(address: Neutral) -> bool {
        is_mapped(address)
    }

    #[inline]
    fn lies_in(self, prefix: Self, mask: Self) -> bool {
        u32::from_ne_bytes(self) & u32::from_ne_bytes(mask) == u32::from_ne_bytes(prefix)
    }
}

impl Address for V6 {
    type Words = [u32; 4];

    #[inline]
    fn words(self) -> [u32; 4] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self;
        [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_ne_bytes)
    }

    #[inline]
    fn neutral(self) -> Neutral {
        self.words()
    }

    #[inline]
    fn from_neutral(address: Neutral) -> Self {
        // Copied as a whole, so that the compiler writes words. From single bytes, it writes single bytes.
        let words = address.map(u32::to_ne_bytes);
        words.as_flattened().first_chunk().copied().unwrap_or_default()
    }

    #[inline]
    fn is_family_of(address: Neutral) -> bool {
        !is_mapped(address)
    }

    #[inline]
    fn lies_in(self, prefix: Self, mask: Self) -> bool {
        let ([a, b, c, d], [p, q, r, s], [k, l, m, n]) = (self.words(), prefix.words(), mask.words());
        ((a & k) ^ p) | ((b & l) ^ q) | ((c & m) ^ r) | ((d & n) ^ s) == 0
    }
}

#[inline]
fn is_mapped([a, b, c, _]: Neutral) -> bool {
    [a, b, c] == MAPPED
}
