//! Veth pairs: one end here, the other, ready for use, inside a container's namespace.

use std::{
    fs::File,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    thread,
};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage as Message,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
        LinkMessage,
    },
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use netlink_sys::Socket;
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
};
use std::os::fd::AsRawFd;
use vxlane_dataplane::wire::MacAddr;

/// A pair that shall be.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// The end in this namespace.
    pub interface: &'a str,
    /// What that end carries as its alias, by which we know it for ours.
    pub alias: &'a str,
    /// Longest packet in bytes.
    pub mtu: u32,
    /// Longest packet in bytes that the container may hand over for segmentation: with the
    /// tunnel's headers it must still be one that an IP header can tell the length of.
    pub gso_max: u32,
    /// The namespace of the other end.
    pub netns: &'a Path,
    /// The name of the other end.
    pub ifname: &'a str,
    /// The Ethernet address of the other end.
    pub mac: Option<MacAddr>,
    /// Its addresses, each with the length of its subnet's prefix.
    pub addresses: &'a [IpNetwork],
    /// Whether it speaks no IPv6 of its own accord.
    pub quiet: bool,
}

/// Why a pair could not be made. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The namespace cannot be entered.
    #[error("network namespace {}", .path.display())]
    Netns {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// One of the two names is taken.
    #[error("{interface} or {ifname} exists already")]
    Exists {
        /// The end here.
        interface: String,
        /// The end in the container.
        ifname: String,
    },
    /// The kernel refused a step.
    #[error("{step}")]
    Step {
        /// What was to be done.
        step: String,
        /// What it answered.
        source: io::Error,
    },
}

impl Pair<'_> {
    /// Makes the pair, both ends up.
    ///
    /// # Errors
    /// [`PairError`]
    pub fn make(&self) -> Result<(), PairError> {
        let netns = |source| PairError::Netns { path: self.netns.to_owned(), source };
        let namespace = File::open(self.netns).map_err(netns)?;
        let inside = connect_inside(&namespace).map_err(netns)?;
        let here = super::connect().map_err(step("NETLINK_ROUTE"))?;
        self.create(&here, &namespace)?;
        let finished = self.finish_here(&here).and_then(|()| self.finish_inside(&inside));
        finished.inspect_err(|_| {
            // The first error is the one to report.
            let _ = remove_pair(self.interface);
        })
    }

    fn create(&self, here: &Socket, namespace: &File) -> Result<(), PairError> {
        let mut peer = named(self.ifname);
        peer.attributes.push(LinkAttribute::Mtu(self.mtu));
        peer.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
        peer.attributes.extend(self.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        let mut link = named(self.interface);
        link.attributes.push(LinkAttribute::Mtu(self.mtu));
        let data = InfoData::Veth(InfoVeth::Peer(peer));
        link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        super::ask_through(here, Message::NewLink(link), flags).map(drop).map_err(|source| {
            if source.raw_os_error() == Some(Errno::EEXIST as i32) {
                return PairError::Exists { interface: self.interface.to_owned(), ifname: self.ifname.to_owned() };
            }
            step(&format!("RTM_NEWLINK {}", self.interface))(source)
        })
    }

    /// This end has no part in any conversation: the host does not speak IPv6 on it.
    fn finish_here(&self, here: &Socket) -> Result<(), PairError> {
        let mut link = named(self.interface);
        link.attributes.push(LinkAttribute::IfAlias(self.alias.to_owned()));
        link.attributes.push(quiet());
        tell(here, Message::SetLink(link), self.interface)?;
        tell(here, Message::SetLink(up(self.interface)), self.interface)
    }

    fn finish_inside(&self, inside: &Socket) -> Result<(), PairError> {
        if self.quiet {
            // Before it is up: that is when it makes its address.
            let mut link = named(self.ifname);
            link.attributes.push(quiet());
            tell(inside, Message::SetLink(link), self.ifname)?;
        }
        let mut link = up(self.ifname);
        link.attributes.push(LinkAttribute::GsoMaxSize(self.gso_max));
        tell(inside, Message::SetLink(link), self.ifname)?;
        let index = index_of(inside, self.ifname)?;
        for &address in self.addresses {
            let message = Message::NewAddress(address_message(index, address));
            tell(inside, message, &format!("{address} on {}", self.ifname))?;
        }
        Ok(())
    }
}

/// Has the default route of the container at `netns`, for the internet protocol of `gateway`, lead
/// to that through its device `ifname`, from one packet to the next where it had another one.
///
/// # Errors
/// [`PairError`]
pub fn set_default_route(netns: &Path, ifname: &str, gateway: IpAddr) -> Result<(), PairError> {
    let failed = |source| PairError::Netns { path: netns.to_owned(), source };
    let inside = File::open(netns).and_then(|namespace| connect_inside(&namespace)).map_err(failed)?;
    let message = Message::NewRoute(default_route(index_of(&inside, ifname)?, gateway));
    let what = format!("default via {gateway} dev {ifname}");
    super::ask_through(&inside, message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE).map(drop).map_err(step(&what))
}

fn index_of(socket: &Socket, ifname: &str) -> Result<u32, PairError> {
    let answers = super::ask_through(socket, Message::GetLink(named(ifname)), 0);
    let answers = answers.map_err(step(&format!("RTM_GETLINK {ifname}")))?;
    let index = answers.iter().find_map(|answer| match answer {
        Message::NewLink(link) => Some(link.header.index),
        _ => None,
    });
    Ok(index.unwrap_or_default())
}

/// Makes the pair between express lane and workers, both ends up, with so many queues. Nobody
/// speaks on it of his own accord.
///
/// # Errors
/// [`PairError`]; nothing is left then.
pub fn make_punt(punt: &str, ring: &str, mtu: u32, queues: u32) -> Result<(), PairError> {
    let here = super::connect().map_err(step("NETLINK_ROUTE"))?;
    let end = |name: &str| {
        let mut link = named(name);
        let shape = [LinkAttribute::Mtu(mtu), LinkAttribute::NumTxQueues(queues), LinkAttribute::NumRxQueues(queues)];
        link.attributes.extend(shape);
        link
    };
    let mut link = end(punt);
    let data = InfoData::Veth(InfoVeth::Peer(end(ring)));
    link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]));
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    super::ask_through(&here, Message::NewLink(link), flags).map_err(step(&format!("RTM_NEWLINK {punt}")))?;
    let raise = |name: &str| {
        let mut link = named(name);
        link.attributes.push(LinkAttribute::IfAlias(PUNT.to_owned()));
        link.attributes.push(quiet());
        tell(&here, Message::SetLink(link), name)?;
        let mut link = up(name);
        link.header.flags |= LinkFlags::Noarp;
        link.header.change_mask |= LinkFlags::Noarp;
        tell(&here, Message::SetLink(link), name)
    };
    raise(punt).and_then(|()| raise(ring)).inspect_err(|_| {
        // The first error is the one to report.
        let _ = remove_pair(punt);
    })
}

/// The names of the pair that belongs to the uplink with this index: the end of the express lane,
/// and that of the workers.
pub fn punt_names(uplink: u32) -> [String; 2] {
    [format!("vxp{uplink}"), format!("vxr{uplink}")]
}

/// The alias of either end of the pair between express lane and workers.
const PUNT: &str = "vxlane express lane";

/// Whether `interface` is an end of such a pair.
pub fn is_punt(interface: &str) -> bool {
    let is_alias = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::IfAlias(alias) if alias == PUNT);
    let answers = super::ask(Message::GetLink(named(interface)), 0).unwrap_or_default();
    answers.iter().any(|answer| matches!(answer, Message::NewLink(link) if link.attributes.iter().any(is_alias)))
}

/// Takes away the pair that `interface` is one end of. That it is gone already is no error.
///
/// # Errors
/// What the kernel answered to `RTM_DELLINK`.
pub fn remove_pair(interface: &str) -> io::Result<()> {
    match super::ask(Message::DelLink(named(interface)), NLM_F_ACK) {
        Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => Ok(()),
        answer => answer.map(drop),
    }
}

/// Sets the MTU of an interface.
///
/// # Errors
/// [`PairError`] if it would not have it.
pub fn set_mtu(interface: &str, mtu: u32) -> Result<(), PairError> {
    let here = super::connect().map_err(step("NETLINK_ROUTE"))?;
    tell(&here, with_mtu(interface, mtu), interface)
}

/// Sets the MTU of both ends of a pair.
///
/// # Errors
/// [`PairError`] of the first end that would not have it.
pub fn set_pair_mtu(interface: &str, netns: &Path, ifname: &str, mtu: u32) -> Result<(), PairError> {
    set_mtu(interface, mtu)?;
    let failed = |source| PairError::Netns { path: netns.to_owned(), source };
    let inside = File::open(netns).and_then(|namespace| connect_inside(&namespace)).map_err(failed)?;
    tell(&inside, with_mtu(ifname, mtu), ifname)
}

fn with_mtu(interface: &str, mtu: u32) -> Message {
    let mut link = named(interface);
    link.attributes.push(LinkAttribute::Mtu(mtu));
    Message::SetLink(link)
}

/// Sets the Ethernet address of an interface.
///
/// # Errors
/// [`PairError::Step`]
pub fn set_mac(interface: &str, mac: MacAddr) -> Result<(), PairError> {
    let here = super::connect().map_err(step("NETLINK_ROUTE"))?;
    let mut link = named(interface);
    link.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    tell(&here, Message::SetLink(link), &format!("{mac} on {interface}"))
}

/// Sets an interface up.
///
/// # Errors
/// [`PairError::Step`]
pub fn set_up(interface: &str) -> Result<(), PairError> {
    let here = super::connect().map_err(step("NETLINK_ROUTE"))?;
    tell(&here, Message::SetLink(up(interface)), &format!("{interface} up"))
}

/// Has an interface of ours have the addresses `wanted` and no others.
///
/// # Errors
/// [`PairError::Step`]
pub fn set_addresses(index: u32, interface: &str, wanted: &[IpNetwork]) -> Result<(), PairError> {
    let here = super::connect().map_err(step("NETLINK_ROUTE"))?;
    let answers = super::ask_through(&here, Message::GetAddress(AddressMessage::default()), NLM_F_DUMP);
    let mut missing = wanted.to_vec();
    for answer in answers.map_err(step("RTM_GETADDR"))? {
        let Message::NewAddress(has) = answer else { continue };
        if has.header.index != index {
            continue;
        }
        let address = super::local(&has).and_then(|address| IpNetwork::new(address, has.header.prefix_len).ok());
        match missing.iter().position(|&wanted| Some(wanted) == address) {
            Some(place) => drop(missing.swap_remove(place)),
            None => tell(&here, Message::DelAddress(has), &format!("another address off {interface}"))?,
        }
    }
    for address in missing {
        tell(&here, Message::NewAddress(address_message(index, address)), &format!("{address} on {interface}"))?;
    }
    Ok(())
}

/// A socket to the kernel that speaks of `namespace`. Only a thread can enter, so one does.
fn connect_inside(namespace: &File) -> io::Result<Socket> {
    let entered = thread::scope(|scope| {
        let enter = || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            super::connect()
        };
        scope.spawn(enter).join()
    });
    entered.unwrap_or_else(|_| Err(io::Error::other("the thread that entered the namespace panicked")))
}

fn tell(socket: &Socket, message: Message, what: &str) -> Result<(), PairError> {
    super::ask_through(socket, message, NLM_F_ACK | NLM_F_CREATE).map(drop).map_err(step(what))
}

fn step(step: &str) -> impl FnOnce(io::Error) -> PairError {
    let step = step.to_owned();
    move |source| PairError::Step { step, source }
}

fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link
}

/// Has an interface make no IPv6 address of its own, without which it says nothing.
fn quiet() -> LinkAttribute {
    let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![none])])
}

fn up(name: &str) -> LinkMessage {
    let mut link = named(name);
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}

fn address_message(index: u32, address: IpNetwork) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = super::family(address.ip());
    message.header.prefix_len = address.prefix();
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(address.ip()));
    message.attributes.push(AddressAttribute::Address(address.ip()));
    match address {
        IpNetwork::V4(address) => message.attributes.push(AddressAttribute::Broadcast(address.broadcast())),
        // We gave it to nobody else, so that it can be used at once (RFC 4862 section 5.4).
        IpNetwork::V6(_) => message.header.flags = AddressHeaderFlags::Nodad,
    }
    message
}

fn default_route(index: u32, gateway: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = super::family(gateway);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    message.attributes.push(RouteAttribute::Oif(index));
    message
}
