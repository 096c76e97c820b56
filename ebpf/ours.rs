//! The maps that say which frames of an uplink are ours: the same in `steer`, for an uplink with
//! rings, and in `express`, for one without. `dataplane/src/attach/ours.rs` fills them.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, LpmTrie, LruHashMap, lpm_trie::Key},
};
use vxlane_abi::{
    Datagram, Datagram6, LEASE_WORDS, MAX_DATAGRAMS, MAX_PREFIXES, Outside6, Vtep6Address, VtepAddress,
    uplink::{Class, Ours, Sight, classify},
};

#[map]
static VTEP: Array<VtepAddress> = Array::with_max_entries(1, 0);
#[map]
static VTEP6: Array<Vtep6Address> = Array::with_max_entries(1, 0);
#[map]
static LEASES: Array<u64> = Array::with_max_entries(LEASE_WORDS, BPF_F_MMAPABLE);
#[map]
static DATAGRAMS: LruHashMap<Datagram, u8> = LruHashMap::with_max_entries(MAX_DATAGRAMS, 0);
#[map]
static OUTSIDE6: Array<Outside6> = Array::with_max_entries(1, 0);
#[map]
static PREFIXES6: LpmTrie<[u8; 16], u8> = LpmTrie::with_max_entries(MAX_PREFIXES, BPF_F_NO_PREALLOC);
#[map]
static DATAGRAMS6: LruHashMap<Datagram6, u8> = LruHashMap::with_max_entries(MAX_DATAGRAMS, 0);

/// A frame whose bytes can be read.
pub trait Bytes {
    /// The `N` bytes at `offset`; `None` beyond the end of the frame.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

/// Whose a frame of an uplink is.
#[inline(always)]
pub fn class(frame: &impl Bytes) -> Class {
    match (VTEP.get(0), VTEP6.get(0), OUTSIDE6.get(0)) {
        (Some(vtep), Some(vtep6), Some(outside6)) => classify(&Seen(frame), &Ours { vtep, vtep6, outside6 }),
        _ => Class::NotVxlan,
    }
}

/// A frame beside the maps.
struct Seen<'a, F>(&'a F);

impl<F: Bytes> Sight for Seen<'_, F> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.read(offset)
    }

    #[inline(always)]
    fn lent(&self, index: u32) -> u64 {
        LEASES.get(index).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn awaits(&self, datagram: &Datagram) -> bool {
        // SAFETY: nothing is read but whether there is such an entry.
        unsafe { DATAGRAMS.get(datagram) }.is_some()
    }

    #[inline(always)]
    fn expect(&self, datagram: &Datagram) {
        let _ = DATAGRAMS.insert(datagram, &0, 0);
    }

    #[inline(always)]
    fn awaits_v6(&self, datagram: &Datagram6) -> bool {
        // SAFETY: as above.
        unsafe { DATAGRAMS6.get(datagram) }.is_some()
    }

    #[inline(always)]
    fn expect_v6(&self, datagram: &Datagram6) {
        let _ = DATAGRAMS6.insert(datagram, &0, 0);
    }

    #[inline(always)]
    fn routes(&self, address: [u8; 16]) -> bool {
        PREFIXES6.get(&Key::new(128, address)).is_some()
    }
}
