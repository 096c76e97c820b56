//! Packets that have no ports of their own to go by: fragments, and ICMP errors about others.

use super::{
    Nat, Restored, Sender,
    fragments::{Datagram, Fate},
    mappings::Inside,
    packet::{Packet, Quote},
    ports::{self, OutsideId},
    rewrite::{self, Side},
    sessions::Key,
    too_long,
};
use crate::{
    clock::Ticks,
    ids::NetworkId,
    verdict::DropReason,
    wire::{Address, Ipv4, Version},
};

impl<A: Address> Nat<A> {
    /// Gives a packet of IPv4 that may be fragmented, here or further on, an identification that no
    /// other host behind the same address has given it (RFC 7857 section 10, RFC 6864 section 4.1).
    #[inline]
    pub(super) fn identify(&mut self, packet: &Packet<A>, bytes: &mut [u8]) {
        let may_be_cut = || Ipv4::new_checked(bytes).is_some_and(|header| !header.dont_fragment());
        if A::VERSION == Version::V4 && may_be_cut() {
            let identification = self.fragments.identification();
            rewrite::set_identification::<A>(bytes, packet.identification_at, identification);
        }
    }

    /// A fragment leaves with the address of its host and an identification that is ours.
    pub(super) fn fragment_leaves(&mut self, now: Ticks, from: Sender, packet: &Packet<A>, bytes: &mut [u8]) {
        // The first fragment has its new address already: the old one is in `packet`.
        let datagram = datagram(Some(from.network), packet, bytes);
        let known = self.fragments.fate(&datagram, now, &self.hasher);
        let (address, identification) = match known {
            Some(Fate::Out { address, identification }) => (address, identification),
            Some(Fate::In(_) | Fate::Elsewhere(_)) | None => {
                let index = ports::paired(from.network.0, packet.source, self.config.addresses.len());
                let address = self.config.addresses.get(usize::from(index)).copied().unwrap_or(packet.source);
                let identification = self.fragments.identification();
                self.fragments.remember(datagram, Fate::Out { address, identification }, now, &self.hasher);
                (address, identification)
            }
        };
        rewrite::set_address(bytes, Side::Source, address);
        rewrite::set_identification::<A>(bytes, packet.identification_at, identification);
    }

    pub(super) fn fragment_arrives(
        &self,
        id: OutsideId,
        bytes: &mut [u8],
        length: usize,
        mtu_of: impl Fn(NetworkId) -> Option<u16>,
    ) -> Result<Restored, DropReason> {
        let mapping = self.mappings.get(id).ok_or(DropReason::NatFragment)?;
        let inside = mapping.inside();
        let mtu = mtu_of(inside.network).ok_or(DropReason::NatFragment)?;
        if let Some(too_long) = too_long::<A>(bytes, length, mtu) {
            return Ok(too_long);
        }
        rewrite::set_address(bytes, Side::Destination, inside.address);
        Ok(Restored::Inside { network: inside.network, mac: mapping.mac() })
    }

    /// An ICMP error from inside, about a packet that came from outside (RFC 5508 REQ-5). It
    /// neither refreshes nor ends a session (REQ-6).
    #[cold]
    pub(super) fn error_leaves(
        &self,
        from: Sender,
        packet: &Packet<A>,
        quote: &Quote<A>,
        bytes: &mut [u8],
    ) -> Result<(), DropReason> {
        let bad = DropReason::NatIcmpError;
        let flow = &quote.flow;
        let inside = Inside { network: from.network, address: quote.destination, port: flow.destination };
        let id = self.mappings.find(inside.hash(flow.protocol, &self.hasher), inside, flow.protocol).ok_or(bad)?;
        let key = Key { outside: id, remote: quote.source, port: flow.source };
        self.sessions.find(key.hash(&self.hasher), key).ok_or(bad)?;
        rewrite::error(bytes, packet, quote, Side::Destination, self.address_of(id), id.port());
        Ok(())
    }

    /// An ICMP error from outside, about a packet that left (RFC 5508 REQ-4). Whoever sent it,
    /// the session that it quotes must be (RFC 4787 REQ-12).
    #[cold]
    pub(super) fn error_arrives(
        &self,
        address: u8,
        packet: &Packet<A>,
        quote: &Quote<A>,
        bytes: &mut [u8],
        mtu_of: impl Fn(NetworkId) -> Option<u16>,
    ) -> Result<Restored, DropReason> {
        let bad = DropReason::NatIcmpError;
        if self.pool_index(quote.source) != Some(address) || quote.flow.is_reply {
            return Err(bad);
        }
        let id = OutsideId::new(address, quote.flow.protocol, quote.flow.source);
        if let Some(worker) = self.elsewhere(id) {
            return Ok(Restored::Elsewhere(worker));
        }
        let mapping = self.mappings.get(id).ok_or(bad)?;
        let key = Key { outside: id, remote: quote.destination, port: quote.flow.destination };
        self.sessions.find(key.hash(&self.hasher), key).ok_or(bad)?;
        let inside = mapping.inside();
        let mtu = mtu_of(inside.network).ok_or(bad)?;
        if let Some(too_long) = too_long::<A>(bytes, packet.length, mtu) {
            return Ok(too_long);
        }
        rewrite::error(bytes, packet, quote, Side::Source, inside.address, inside.port);
        Ok(Restored::Inside { network: inside.network, mac: mapping.mac() })
    }
}

/// The datagram that a fragment belongs to.
pub(super) fn datagram<A: Address>(network: Option<NetworkId>, packet: &Packet<A>, bytes: &[u8]) -> Datagram<A> {
    let (protocol, identification) = match A::VERSION {
        Version::V4 => {
            Ipv4::new_checked(bytes).map_or((0, 0), |header| (header.protocol, u32::from(header.identification.get())))
        }
        Version::V6 => {
            let field = bytes.get(packet.identification_at..).and_then(|rest| rest.first_chunk());
            (0, field.map_or(0, |field| u32::from_be_bytes(*field)))
        }
    };
    Datagram { network, source: packet.source, destination: packet.destination, protocol, identification }
}
