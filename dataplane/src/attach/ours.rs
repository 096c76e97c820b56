//! Which frames of an uplink are ours, as a program reads it in its maps.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    sync::Arc,
};

use aya::{
    Ebpf,
    maps::{Array, LpmTrie, Map, MapData, lpm_trie::Key},
};
use ipnetwork::Ipv6Network;
use vxlane_abi::{self as abi, maps};

use super::{
    mapped::Mapped,
    maps::{MapFault, refused, take},
};
use crate::{
    nat::{Board, BoardPart},
    tables::LocalVtep,
};

/// Which frames of an uplink are ours. Until something is said, none is.
pub struct Ours {
    vtep: Array<MapData, abi::VtepAddress>,
    vtep6: Array<MapData, abi::Vtep6Address>,
    outside6: Array<MapData, abi::Outside6>,
    prefixes6: LpmTrie<MapData, [u8; 16], u8>,
    /// Those in that map.
    routed: HashSet<Ipv6Network>,
    boards: Boards,
}

/// Where address translation posts the ports that it lends: what is for these is ours, too.
#[derive(Clone)]
pub struct Boards {
    /// At the address of the VTEP.
    pub v4: Board,
    /// At the address of [`Ours::set_outside_v6`].
    pub v6: Board,
}

impl PartialEq for Boards {
    /// Whether they are the same, not whether the same is posted.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.v4, &other.v4) && Arc::ptr_eq(&self.v6, &other.v6)
    }
}

impl Ours {
    /// Takes the maps out of `object`.
    pub(super) fn of(object: &mut Ebpf) -> Result<Self, MapFault> {
        Ok(Self {
            vtep: take(object, maps::VTEP)?,
            vtep6: take(object, maps::VTEP6)?,
            outside6: take(object, maps::OUTSIDE6)?,
            prefixes6: take(object, maps::PREFIXES6)?,
            routed: HashSet::new(),
            boards: boards(object)?,
        })
    }

    /// Where lent ports are posted.
    pub fn boards(&self) -> &Boards {
        &self.boards
    }

    /// Says at which IPv6 address ports are lent, and packets to which prefixes are ours.
    ///
    /// # Errors
    /// [`MapFault`]
    pub fn set_outside_v6(&mut self, lent: Option<Ipv6Addr>, routed: &HashSet<Ipv6Network>) -> Result<(), MapFault> {
        let failed = || refused(maps::PREFIXES6);
        for prefix in self.routed.difference(routed) {
            self.prefixes6.remove(&key(*prefix)).map_err(failed())?;
        }
        for prefix in routed.difference(&self.routed) {
            self.prefixes6.insert(&key(*prefix), 0u8, 0).map_err(failed())?;
        }
        self.routed.clone_from(routed);
        let address = lent.map_or([0; 16], |address| address.octets());
        let prefixes = u32::try_from(routed.len()).unwrap_or(u32::MAX);
        self.outside6.set(0, abi::Outside6 { address, prefixes }, 0).map_err(refused(maps::OUTSIDE6))
    }

    /// Says which datagrams are ours: VXLAN to an address of `local`, and what is for a lent port of
    /// `outside`, which is the IPv4 address of `local`, if that has one.
    ///
    /// # Errors
    /// [`MapFault`]
    pub fn set_vtep(&mut self, local: &LocalVtep, outside: Option<Ipv4Addr>) -> Result<(), MapFault> {
        let port_of = |known: bool| if known { local.port.to_be_bytes() } else { [0; 2] };
        let address = local.v4.or(outside).map_or([0; 4], |address| address.octets());
        let vtep = abi::VtepAddress { address, port: port_of(local.v4.is_some()), reserved: [0; 2] };
        self.vtep.set(0, vtep, 0).map_err(refused(maps::VTEP))?;
        let address = local.v6.map_or([0; 16], |address| address.octets());
        let vtep6 = abi::Vtep6Address { address, port: port_of(local.v6.is_some()), reserved: [0; 6] };
        self.vtep6.set(0, vtep6, 0).map_err(refused(maps::VTEP6))
    }
}

fn boards(object: &mut Ebpf) -> Result<Boards, MapFault> {
    let map = match object.take_map(maps::LEASES) {
        Some(Map::Array(map)) => map,
        _ => return Err(MapFault::Missing { name: maps::LEASES }),
    };
    let words = Mapped::map(map.fd().as_fd(), abi::LEASE_WORDS as usize)
        .map_err(|source| MapFault::Unmapped { name: maps::LEASES, source })?;
    let whole: Board = Arc::new(words);
    let part = |words| Arc::new(BoardPart::new(&whole, words));
    Ok(Boards { v4: part(0..BOARD), v6: part(BOARD..2 * BOARD) })
}

fn key(prefix: Ipv6Network) -> Key<[u8; 16]> {
    Key::new(prefix.prefix().into(), prefix.network().octets())
}

/// Words of the board of one internet protocol.
const BOARD: usize = abi::LEASE_V6 as usize / 64;
