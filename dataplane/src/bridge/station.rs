//! A station in eight bytes: its network and its MAC address, as the table keeps them.

use crate::{ids::NetworkId, wire::MacAddr};

/// A station: the MAC address in the upper 48 bits, with its group bit turned over, and the network in the
/// lower 16: so it takes a group address to give zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packed(pub(super) u64);

/// What a network has to do with [`Packed`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Realm(pub(super) u64);

impl Realm {
    #[inline(always)]
    pub(crate) fn of(network: NetworkId) -> Self {
        Self(u64::from(network.0) ^ GROUP_BIT)
    }

    #[inline(always)]
    pub(super) fn pack(self, mac: MacAddr) -> Packed {
        Packed(mac.to_u64() << 16 ^ self.0)
    }
}

#[inline(always)]
pub(super) fn pack((network, mac): (NetworkId, MacAddr)) -> Packed {
    Realm::of(network).pack(mac)
}

const GROUP_BIT: u64 = 1 << 56;

#[expect(clippy::cast_possible_truncation, reason = "the lower 16 bits are the network")]
pub(super) fn unpack(key: u64) -> (NetworkId, MacAddr) {
    (NetworkId(key as u16), MacAddr::from_u64((key ^ GROUP_BIT) >> 16))
}
