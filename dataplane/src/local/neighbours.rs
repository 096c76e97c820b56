//! ARP and neighbour discovery: noted, answered where the answer is known, flooded where not.
//!
//! The rules are those of RFC 9161. Endpoints of this host teach us, tunnels do not. A question
//! to everybody is answered for the gateway, for what control knows and for what was heard; one to
//! a single station goes to that station, which knows best whether it is still there.

use std::net::IpAddr;

use super::{Answer, Visit, own_mac};
use crate::{
    events::{Event, Events},
    neigh::{Claim, Heard, Neighbours},
    tables::Network,
    verdict::{DropReason, News, Verdict},
    wire::{
        Arp, EtherType, Ethernet, Layers, MacAddr,
        arp::Operation,
        nd::{self, Kind, Message},
    },
};

/// Where what is heard goes.
#[derive(Debug)]
pub struct Ears<'a> {
    /// The bindings.
    pub neighbours: &'a mut Neighbours,
    /// What an operator should hear of.
    pub events: &'a mut Events,
    /// What other workers should hear of.
    pub news: &'a mut Vec<News>,
}

/// What becomes of a frame from an endpoint or the host that is not IPv4; `None` if that is
/// decided as for any other frame.
///
/// # Errors
/// Why it goes nowhere.
pub fn serve(visit: &Visit<'_>, frame: &[u8], ears: &mut Ears<'_>) -> Result<Option<Verdict>, DropReason> {
    match visit.ethernet.ether_type {
        EtherType::ARP => match Arp::new_checked(&frame[Ethernet::LEN..]) {
            Some(arp) => serve_arp(visit, arp, ears),
            None => Ok(None),
        },
        EtherType::IPV6 => match nd::parse(frame, visit.layers) {
            Some(message) => serve_nd(visit, &message.map_err(|_| DropReason::NdInvalid)?, ears),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// Whether a frame out of a tunnel may say what it says in ARP or neighbour discovery.
///
/// # Errors
/// [`DropReason::SpoofedAddress`] if it speaks as the gateway, or as somebody whose address
/// control knows to be another's.
pub fn check_remote(network: &Network, ethernet: &Ethernet, layers: &Layers, frame: &[u8]) -> Result<(), DropReason> {
    let (address, mac) = match ethernet.ether_type {
        EtherType::ARP => match Arp::new_checked(&frame[Ethernet::LEN..]) {
            Some(arp) => (arp.sender().into(), arp.sender_mac),
            None => return Ok(()),
        },
        EtherType::IPV6 => match nd::parse(frame, layers) {
            Some(Ok(message)) => match spoken_for(&message, ethernet.source) {
                Some(claim) => claim,
                None => return Ok(()),
            },
            Some(Err(_)) | None => return Ok(()),
        },
        _ => return Ok(()),
    };
    let is_gateway = network.gateway.is_some_and(|gateway| gateway.has(address));
    if is_gateway || belongs_to_another(network, address, mac) { Err(DropReason::SpoofedAddress) } else { Ok(()) }
}

fn serve_arp(visit: &Visit<'_>, arp: &Arp, ears: &mut Ears<'_>) -> Result<Option<Verdict>, DropReason> {
    let operation = arp.operation();
    if operation == Operation::Other {
        return Ok(None);
    }
    let sender = arp.sender();
    hear(visit, sender.into(), arp.sender_mac, false, ears)?;
    if operation == Operation::Reply {
        return to_ourselves(visit, sender.is_unspecified());
    }
    Ok(find(visit, arp.target().into(), ears).map(|(mac, _)| Verdict::Answer(Answer::Arp(mac))))
}

fn serve_nd(visit: &Visit<'_>, message: &Message, ears: &mut Ears<'_>) -> Result<Option<Verdict>, DropReason> {
    match message.kind {
        Kind::Solicitation => {
            if let Some((address, mac)) = spoken_for(message, visit.ethernet.source) {
                refuse_pretence(visit, address, mac)?;
            }
            let found = find(visit, message.target.into(), ears).filter(|_| !message.has_others);
            Ok(found.map(|(mac, router)| Verdict::Answer(Answer::Neighbour { mac, router })))
        }
        Kind::Advertisement => {
            let mac = message.link_layer.unwrap_or(visit.ethernet.source);
            if message.flags & nd::OVERRIDE != 0 && message.link_layer.is_some() {
                hear(visit, message.target.into(), mac, message.flags & nd::ROUTER != 0, ears)?;
            } else {
                refuse_pretence(visit, message.target.into(), mac)?;
            }
            to_ourselves(visit, false)
        }
        // The host believes no endpoint about routers.
        Kind::RouterAdvertisement | Kind::Redirect if visit.ethernet.destination == own_mac(visit.network) => {
            Err(DropReason::RouterAdvertisement)
        }
        Kind::RouterSolicitation | Kind::RouterAdvertisement | Kind::Redirect => Ok(None),
    }
}

/// The address that a message speaks for, and the station that it says has it.
fn spoken_for(message: &Message, sender: MacAddr) -> Option<(IpAddr, MacAddr)> {
    let address = if message.kind == Kind::Advertisement { message.target } else { message.source };
    (!address.is_unspecified()).then(|| (address.into(), message.link_layer.unwrap_or(sender)))
}

/// Notes that `mac` claims `address`.
fn hear(visit: &Visit<'_>, address: IpAddr, mac: MacAddr, router: bool, ears: &mut Ears<'_>) -> Result<(), DropReason> {
    refuse_pretence(visit, address, mac)?;
    let network = visit.network;
    let worth = network.suppression
        && !visit.is_host
        && mac == visit.ethernet.source
        && is_of_one_station(address)
        && !network.neighbours.contains_key(&address);
    if !worth {
        return Ok(());
    }
    let claim = Claim { network: visit.id, address, mac, port: visit.port, router };
    match ears.neighbours.learn(network, claim, true, visit.now) {
        Heard::Known => return Ok(()),
        Heard::News => {}
        Heard::Duplicate(stations) => {
            ears.events.note(visit.now, Event::AddressClaimedTwice { network: visit.id, address, stations });
        }
    }
    ears.news.push(News::Neighbour(claim));
    Ok(())
}

fn is_of_one_station(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !(address.is_unspecified() || address.is_multicast() || address.is_broadcast() || address.is_loopback())
        }
        IpAddr::V6(address) => !(address.is_unspecified() || address.is_multicast() || address.is_loopback()),
    }
}

/// Nobody but the host speaks as the gateway, nor anybody as somebody whom control knows.
fn refuse_pretence(visit: &Visit<'_>, address: IpAddr, mac: MacAddr) -> Result<(), DropReason> {
    let is_gateway = visit.network.gateway.is_some_and(|gateway| gateway.has(address));
    let pretends = (is_gateway && !visit.is_host) || belongs_to_another(visit.network, address, mac);
    if pretends { Err(DropReason::SpoofedAddress) } else { Ok(()) }
}

fn belongs_to_another(network: &Network, address: IpAddr, mac: MacAddr) -> bool {
    network.neighbours.get(&address).is_some_and(|&owner| owner != mac)
}

/// Who has `address`, and whether that is a router, if the one who asks is to be told here.
fn find(visit: &Visit<'_>, address: IpAddr, ears: &Ears<'_>) -> Option<(MacAddr, bool)> {
    let network = visit.network;
    let gateway = network.gateway.filter(|gateway| gateway.has(address));
    if let Some(gateway) = gateway {
        return (!visit.is_host).then_some((gateway.mac, true));
    }
    // RFC 9161 section 3.3: what is asked of one station is for that station to answer.
    let is_answered = network.suppression && visit.ethernet.destination.is_group();
    // An isolated endpoint has nobody to ask for.
    if !is_answered || (network.isolation && !visit.is_host) {
        return None;
    }
    if let Some(&mac) = network.neighbours.get(&address) {
        let is_own = network.stations.get(&mac) == Some(&crate::bridge::Origin::Port(visit.port));
        return (!is_own && mac != visit.ethernet.source).then_some((mac, false));
    }
    let binding = ears.neighbours.lookup(visit.id, network, address, visit.now)?;
    (binding.port != visit.port).then_some((binding.mac, binding.router))
}

/// An answer that is addressed to the gateway: for the host, or to a question of ours.
fn to_ourselves(visit: &Visit<'_>, says_nothing: bool) -> Result<Option<Verdict>, DropReason> {
    if visit.ethernet.destination != own_mac(visit.network) || visit.is_host {
        return Ok(None);
    }
    match visit.network.host.filter(|_| !says_nothing) {
        Some(host) => Ok(Some(Verdict::Deliver(host))),
        None => Err(DropReason::AnswerTaken),
    }
}

/// What another worker heard, once it is known that its network is still there.
pub fn hear_told(network: &Network, claim: Claim, neighbours: &mut Neighbours, now: crate::clock::Instant) {
    let is_current = network.ports.contains(&claim.port) && !network.neighbours.contains_key(&claim.address);
    if is_current {
        // Whoever heard it tells everybody, operators as well.
        let _ = neighbours.learn(network, claim, false, now);
    }
}
