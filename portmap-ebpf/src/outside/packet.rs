//! Access to the bytes of a packet. Only this file and `onward` call the kernel's helpers for packets.
#![expect(clippy::cast_possible_truncation, reason = "lengths and offsets in a packet fit into 32 bits")]

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_load_bytes, bpf_skb_store_bytes},
};
use portmap_common::packet::Bytes;

/// Length of an Ethernet header in bytes.
pub const ETHERNET: usize = 14;

/// `ETH_P_IP`, as the kernel stores it in `skb->protocol`.
pub const IPV4: u32 = 0x0800_u16.to_be() as u32;

/// `ETH_P_IPV6`, as the kernel stores it in `skb->protocol`.
pub const IPV6: u32 = 0x86dd_u16.to_be() as u32;

/// A packet at a hook of a device. `LINK` is the length of the link-layer header in bytes. Offsets count from the network
/// header.
#[derive(Clone, Copy)]
pub struct Packet<const LINK: usize> {
    context: *mut __sk_buff,
}

/// The part of a transport header that a checksum covers, and so the kind of its change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// An address of the pseudo header.
    Pseudo,
    /// Data in the transport header or after it.
    Data,
}

impl<const LINK: usize> Packet<LINK> {
    /// The packet of a hook's context.
    #[inline(always)]
    pub fn new(context: *mut __sk_buff) -> Self {
        Self { context }
    }

    /// The hook's context.
    #[inline(always)]
    pub fn context(self) -> *mut __sk_buff {
        self.context
    }

    /// The interface index of the device.
    #[inline(always)]
    pub fn device(self) -> u32 {
        // SAFETY: the kernel gives the program a valid context.
        unsafe { (*self.context).ifindex }
    }

    /// The packet's protocol, as `skb->protocol`; 0 for a packet with a VLAN tag. The packet meets the hooks of the VLAN's own
    /// device, too.
    #[inline(always)]
    pub fn ethertype(self) -> u32 {
        // SAFETY: the kernel gives the program a valid context.
        let is_tagged = unsafe { (*self.context).vlan_present };
        // SAFETY: as above.
        let protocol = unsafe { (*self.context).protocol };
        if is_tagged == 0 { protocol } else { 0 }
    }

    /// The length of the packet with its link-layer header, in bytes.
    #[inline(always)]
    pub fn length(self) -> u32 {
        // SAFETY: the kernel gives the program a valid context.
        unsafe { (*self.context).len }
    }

    /// The length of the data in each segment that the kernel makes of this packet, in bytes; 0 if it is not divided.
    #[inline(always)]
    pub fn segment_size(self) -> u32 {
        // SAFETY: the kernel gives the program a valid context.
        unsafe { (*self.context).gso_size }
    }

    /// The offset of the packet's end, if its header has `stated`. The header of a packet that the kernel will divide may have 0.
    #[inline(always)]
    pub fn end(self, stated: usize) -> usize {
        if stated == 0 && self.segment_size() != 0 { self.length() as usize - LINK } else { stated }
    }

    /// Writes the destination and the source of an Ethernet header.
    #[inline(always)]
    pub fn store_link(self, addresses: &[u8; 12]) -> bool {
        // SAFETY: the pointer is to 12 initialized bytes.
        unsafe { bpf_skb_store_bytes(self.context.cast(), 0, addresses.as_ptr().cast(), 12, 0) == 0 }
    }

    /// Updates the checksum at `offset` of an IPv4 header after a change of 2 bytes.
    #[inline(always)]
    pub fn update_header_checksum(self, offset: usize, old: [u8; 2], new: [u8; 2]) -> bool {
        let (old, new) = (u64::from(u16::from_ne_bytes(old)), u64::from(u16::from_ne_bytes(new)));
        // SAFETY: the kernel checks the offset.
        unsafe { bpf_l3_csum_replace(self.context.cast(), position::<LINK>(offset), old, new, 2) == 0 }
    }

    /// Writes bytes at an offset. False if the kernel cannot make them writable.
    #[inline(always)]
    pub fn store<const N: usize>(self, offset: usize, bytes: &[u8; N]) -> bool {
        // SAFETY: the pointer is to N initialized bytes.
        unsafe { self.store_at(offset, bytes.as_ptr(), N) }
    }

    /// As [`Self::store`].
    ///
    /// # Safety
    ///
    /// The pointer must be to `length` initialized bytes.
    #[inline(always)]
    pub unsafe fn store_at(self, offset: usize, bytes: *const u8, length: usize) -> bool {
        // SAFETY: as the caller promises.
        unsafe { bpf_skb_store_bytes(self.context.cast(), position::<LINK>(offset), bytes.cast(), length as u32, 0) == 0 }
    }

    /// Updates the transport checksum at an offset after a change with this [`difference`]. A UDP checksum of 0 stays 0.
    #[inline(always)]
    pub fn update_checksum(self, offset: usize, difference: u32, flags: u64) -> bool {
        // SAFETY: the kernel checks the offset.
        unsafe { bpf_l4_csum_replace(self.context.cast(), position::<LINK>(offset), 0, u64::from(difference), flags) == 0 }
    }

    /// As [`Self::update_checksum`], for 4 bytes.
    #[inline(always)]
    pub fn update_checksum_of_word(self, offset: usize, old: [u8; 4], new: [u8; 4], flags: u64) -> bool {
        let (old, new) = (u64::from(u32::from_ne_bytes(old)), u64::from(u32::from_ne_bytes(new)));
        // SAFETY: the kernel checks the offset.
        unsafe { bpf_l4_csum_replace(self.context.cast(), position::<LINK>(offset), old, new, flags | 4) == 0 }
    }
}

/// The change of a sum of 16-bit words in ones' complement, after a change of these 32-bit words (RFC 1624).
#[inline(always)]
pub fn difference<const N: usize>(old: [u32; N], new: [u32; N]) -> u32 {
    let mut sum = 0;
    for index in 0..N {
        sum += u64::from(!old[index]) + u64::from(new[index]);
    }
    let folded = (sum & 0xffff_ffff) + (sum >> 32);
    ((folded & 0xffff_ffff) + (folded >> 32)) as u32
}

/// The flags of a checksum's update. `is_udp`: a checksum of 0 means that there is none.
#[inline(always)]
pub fn checksum_flags(part: Part, is_udp: bool) -> u64 {
    let pseudo = if part == Part::Pseudo { u64::from(BPF_F_PSEUDO_HDR) } else { 0 };
    pseudo | if is_udp { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 }
}

/// The last offset that is read without a helper.
const LAST_OFFSET: u32 = 0x3fff;

impl<const LINK: usize> Bytes for Packet<LINK> {
    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let mut words = MaybeUninit::<[u32; N]>::uninit();
        let is_loaded = self.copy(offset, &mut words) || {
            let (target, length) = (words.as_mut_ptr().cast(), size_of::<[u32; N]>() as u32);
            // SAFETY: the pointer is to `length` writable bytes.
            unsafe { bpf_skb_load_bytes(self.context.cast_const().cast(), position::<LINK>(offset), target, length) == 0 }
        };
        // SAFETY: all words have been written.
        is_loaded.then(|| unsafe { words.assume_init() })
    }
}

impl<const LINK: usize> Packet<LINK> {
    /// Copies words at an offset without a call of a helper. False if they are not in the first part of the packet's memory, where
    /// the headers usually are.
    #[inline(always)]
    fn copy<const N: usize>(self, offset: usize, words: &mut MaybeUninit<[u32; N]>) -> bool {
        let offset = position::<LINK>(offset);
        // The verifier rejects larger offsets.
        if offset > LAST_OFFSET {
            return false;
        }
        // SAFETY: the kernel gives the program a valid context.
        let data = unsafe { (*self.context).data };
        // SAFETY: as above.
        let end = unsafe { (*self.context).data_end };
        let start = data as usize + offset as usize;
        if start + size_of::<[u32; N]>() > end as usize {
            return false;
        }
        for index in 0..N {
            // SAFETY: the word is before the end. The kernel aligns network headers to words where the processor needs this.
            let word = unsafe { (start as *const u32).wrapping_add(index).read() };
            // SAFETY: the word is one of N.
            unsafe { words.as_mut_ptr().cast::<u32>().wrapping_add(index).write(word) };
        }
        true
    }
}

/// The offset from the start of the packet's data.
#[inline(always)]
fn position<const LINK: usize>(offset: usize) -> u32 {
    (LINK + offset) as u32
}
