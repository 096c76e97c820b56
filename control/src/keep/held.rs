//! What was kept, put together again: ports with their program and their queues.

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::OwnedFd,
};

use vxlane_dataplane::{
    attach::{KeptLink, express::KeptLeg},
    link::Link,
    port::xdp,
};

use super::Descriptors;
use crate::netlink;

/// Under which names the descriptors of an interface are kept. None has more than 64 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The interface.
    pub interface: &'a str,
}

impl Names<'_> {
    /// Of its link.
    pub fn link(&self, kept: &KeptLink) -> String {
        format!("link/{}/{}", kept.label(), self.interface)
    }

    /// Of its program in the express lane.
    pub fn leg(&self, kept: &KeptLeg) -> String {
        format!("lane/{}/{}", kept.label(), self.interface)
    }

    /// Of the socket of a queue.
    pub fn socket(&self, queue: u16, kept: &xdp::Kept) -> String {
        format!("socket/{queue}.{}/{}", kept.label(), self.interface)
    }

    /// Of the frames of a queue.
    pub fn frames(&self, queue: u16, kept: &xdp::Kept) -> String {
        format!("frames/{queue}.{}/{}", kept.label(), self.interface)
    }
}

/// Everything that was kept.
#[derive(Debug, Default)]
pub struct Held {
    ports: BTreeMap<String, HeldPort>,
    /// What stations had been learned, in a file.
    pub stations: Option<OwnedFd>,
    /// What sessions of address translation there were, in a file.
    pub sessions: Option<OwnedFd>,
    /// The same of IPv6.
    pub sessions6: Option<OwnedFd>,
}

/// What was kept of one interface.
#[derive(Debug, Default)]
pub struct HeldPort {
    /// The program.
    pub link: Option<KeptLink>,
    /// The program in the express lane.
    pub leg: Option<KeptLeg>,
    /// The queues, by number.
    pub queues: BTreeMap<u16, xdp::Kept>,
    /// The names of all of it.
    pub names: Vec<String>,
}

/// The name of the file with stations.
pub(crate) const STATIONS: &str = "stations";
/// The name of the file with sessions.
pub(crate) const SESSIONS: &str = "sessions";
/// The name of that with sessions of IPv6.
pub(crate) const SESSIONS6: &str = "sessions6";

impl HeldPort {
    /// Leaves the interface as it was found before, and returns the names of what was kept. What
    /// was made for the express lane goes.
    pub fn detach(self, interface: &str) -> Vec<String> {
        if let Some(link) = self.link {
            link.detach();
        }
        if let Some(leg) = self.leg {
            leg.detach(interface);
        }
        if netlink::is_punt(interface)
            && let Err(error) = netlink::remove_pair(interface)
        {
            tracing::warn!(interface, %error, "removing");
        }
        self.names
    }
}

impl Held {
    /// Sorts what was kept. What has a name that is not understood is let go of.
    pub(super) fn of(descriptors: Descriptors) -> Self {
        let mut this = Self::default();
        let mut halves: HashMap<(String, String), OwnedFd> = HashMap::new();
        for (name, fd) in descriptors {
            let mut parts = name.splitn(3, '/');
            let parts = (parts.next(), parts.next(), parts.next());
            if let (_, _, Some(interface)) = parts {
                this.port(interface).names.push(name.clone());
            }
            match parts {
                (Some("link"), Some(label), Some(interface)) => {
                    this.port(interface).link = Some(KeptLink::from_label(label, fd));
                }
                (Some("lane"), Some(label), Some(interface)) => match KeptLeg::from_label(label, fd) {
                    Some(leg) => this.port(interface).leg = Some(leg),
                    None => tracing::warn!(interface, label, "was kept, and is not known"),
                },
                (Some(half @ ("frames" | "socket")), Some(label), Some(interface)) => {
                    let key = (label.to_owned(), interface.to_owned());
                    match halves.remove(&key) {
                        Some(other) if half == "socket" => this.add_queue(label, interface, fd, other),
                        Some(other) => this.add_queue(label, interface, other, fd),
                        None => drop(halves.insert(key, fd)),
                    }
                }
                (Some(STATIONS), None, None) => this.stations = Some(fd),
                (Some(SESSIONS), None, None) => this.sessions = Some(fd),
                (Some(SESSIONS6), None, None) => this.sessions6 = Some(fd),
                _ => tracing::warn!(name, "was kept, and is not known"),
            }
        }
        this
    }

    fn port(&mut self, interface: &str) -> &mut HeldPort {
        self.ports.entry(interface.to_owned()).or_default()
    }

    fn add_queue(&mut self, label: &str, interface: &str, socket: OwnedFd, frames: OwnedFd) {
        let parts = label.split_once('.').and_then(|(queue, label)| Some((queue.parse().ok()?, label)));
        match parts.and_then(|(queue, label)| Some((queue, xdp::Kept::from_label(label, socket, frames)?))) {
            Some((queue, kept)) => drop(self.port(interface).queues.insert(queue, kept)),
            None => tracing::warn!(interface, label, "was kept, and is not known"),
        }
    }

    /// Whether nothing was kept.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// Whether the program that `link` carries is one of ours that was kept.
    pub fn has_program_of(&self, link: &Link) -> bool {
        if link.xdp.is_none() {
            return self.ports.get(&link.name).is_some_and(|port| port.leg.is_some());
        }
        let program = self.ports.get(&link.name).and_then(|port| port.link.as_ref());
        let place = program.and_then(|program| program.place().ok().flatten());
        place.is_some() && place == link.xdp.map(|xdp| (link.index, xdp.id))
    }

    /// Takes out what was kept of `interface`.
    pub fn take(&mut self, interface: &str) -> Option<HeldPort> {
        self.ports.remove(interface)
    }

    /// The interface that leads from the express lane to the workers.
    pub fn exit(&self) -> Option<&str> {
        let is_exit = |port: &HeldPort| port.leg.as_ref().is_some_and(|leg| leg.tag.is_none());
        self.ports.iter().find(|(_, port)| is_exit(port)).map(|(interface, _)| interface.as_str())
    }

    /// The interfaces that were in the express lane, with the numbers that their frames have in it.
    pub fn tags(&self) -> impl Iterator<Item = (&str, u16)> {
        self.ports.iter().filter_map(|(interface, port)| Some((interface.as_str(), port.leg.as_ref()?.tag?)))
    }

    /// Leaves every interface as it was found before all that was kept, and returns the names of
    /// what was kept of them.
    pub fn detach(self) -> Vec<String> {
        let mut names = Vec::new();
        for (interface, port) in self.ports {
            names.extend(port.detach(&interface));
        }
        names
    }
}
