//! What is done for the endpoints of this host, before their frames go anywhere.
//!
//! Each stage looks at a frame and says what becomes of it, or leaves it to the next one.
//! An [`Answer`] says what goes back instead of the frame; it is written when it is sent.

pub mod gateway;
pub mod guard;
pub mod neighbours;

use std::{net::IpAddr, ops::Range};

use crate::{
    clock::Instant,
    ids::{NetworkId, PortId},
    neigh::Question,
    tables::{Gateway, Network},
    wire::{Arp, Ethernet, Layers, MacAddr, nd},
};

/// A frame of an endpoint, or of the host itself, with what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// Its network.
    pub network: &'a Network,
    /// The number of that.
    pub id: NetworkId,
    /// Where it came in.
    pub port: PortId,
    /// Whether that is the host port.
    pub is_host: bool,
    /// Its Ethernet header.
    pub ethernet: Ethernet,
    /// What it carries.
    pub layers: &'a Layers,
    /// When it came.
    pub now: Instant,
}

/// What goes back to the port where a frame came in, instead of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To an ARP request: its target is here.
    Arp(MacAddr),
    /// To a neighbour solicitation: its target is here.
    Neighbour {
        /// At this address.
        mac: MacAddr,
        /// It is a router.
        router: bool,
    },
    /// To an ICMP or ICMPv6 echo request: the same back.
    Echo,
}

/// Room for what an answer has before the part that it repeats.
pub const MAX_HEAD: usize = nd::MAX_FRAME;

impl Answer {
    /// Writes the answer to `frame`: so many bytes of `head`, and behind them a part of the frame
    /// itself. `None` if the frame does not ask what this answers.
    pub fn write(self, frame: &[u8], head: &mut [u8; MAX_HEAD]) -> Option<(usize, Range<usize>)> {
        let (ethernet, payload) = Ethernet::split(frame)?;
        match self {
            Self::Arp(mac) => {
                let asked = Arp::new_checked(payload)?;
                Some((asked.reply(mac).write(ethernet.source, head)?, 0..0))
            }
            Self::Neighbour { mac, router } => {
                let asked = nd::parse(frame, &Layers::walk(frame))?.ok()?;
                let flags = nd::OVERRIDE | if router { nd::ROUTER } else { 0 };
                Some((nd::write_advertisement(&asked, ethernet.source, mac, flags, head)?, 0..0))
            }
            Self::Echo => gateway::write_echo(frame, head),
        }
    }
}

/// Writes a question of ours and returns its length. It speaks as nobody in particular, as
/// RFC 9161 section 3.7 has it: from 0.0.0.0, or from the link-local address of the gateway.
pub fn write_question(network: &Network, question: &Question, out: &mut [u8; MAX_HEAD]) -> Option<usize> {
    let own = own_mac(network);
    match question.address {
        IpAddr::V4(address) => Arp::request(own, [0; 4].into(), address).write(question.mac, out),
        IpAddr::V6(address) => {
            let gateway = network.gateway.unwrap_or_else(|| Gateway::new(network.vni, None, None));
            nd::write_solicitation(gateway.link_local(), own, address, question.mac, out)
        }
    }
}

/// The address that we speak from in `network`: the gateway's, whether or not there is one.
fn own_mac(network: &Network) -> MacAddr {
    network.gateway.map_or_else(|| Gateway::mac_of(network.vni), |gateway| gateway.mac)
}
