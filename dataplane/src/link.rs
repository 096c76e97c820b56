//! What the kernel knows about one network interface.
//!
//! Asked by netlink and ioctl, both of which answer for the network namespace of the calling
//! thread; sysfs shows whichever namespace it was mounted in.

#![expect(clippy::wildcard_enum_match_arm, reason = "netlink's enums have no end")]

pub(crate) mod ethtool;
pub(crate) mod filters;
pub mod talk;

use ethtool::Ethtool;
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached},
};
use std::{fmt, io};

/// A network interface, as it was when asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index, which unlike the name never changes; unique in its namespace only.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address, where it has one.
    pub mac: Option<[u8; 6]>,
    /// The longest packet, without the Ethernet header.
    pub mtu: u32,
    /// Whether somebody has set it up. It sends and receives nothing otherwise.
    pub is_up: bool,
    /// Receive queues in use: each can have one AF_XDP socket.
    pub rx_queues: u32,
    /// Transmit queues in use.
    pub tx_queues: u32,
    /// `veth`, `bridge`, `vxlan` and so on; physical devices have none.
    pub kind: Option<String>,
    /// Whether its other end, if it is one of a pair, is in another namespace.
    pub peer_elsewhere: bool,
    /// The XDP program it carries.
    pub xdp: Option<LinkProgram>,
}

/// An XDP program that an interface carries, ours or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkProgram {
    /// The kernel's number for it, as `bpftool prog` shows it.
    pub id: u32,
    /// Where it runs.
    pub mode: XdpMode,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, before there is a socket buffer.
    Native,
    /// In the network stack, on a socket buffer: for drivers without XDP.
    Generic,
    /// On the device itself.
    Offloaded,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offloaded => "offloaded",
        })
    }
}

/// Why an interface could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The kernel has no such interface, or would not say.
    #[error("RTM_GETLINK {name}")]
    Get {
        /// The name asked for.
        name: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel's answer was not to be understood.
    #[error("RTM_GETLINK {name}: {what}")]
    Answer {
        /// The name asked for.
        name: String,
        /// What was wrong with it.
        what: String,
    },
}

impl Link {
    /// Asks the kernel about the interface called `name`.
    ///
    /// # Errors
    /// [`LinkError::Get`] with `ENODEV` when the calling thread's namespace has none of that
    /// name; otherwise what the kernel answered.
    pub fn get(name: &str) -> Result<Self, LinkError> {
        let mut question = LinkMessage::default();
        question.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let answers = talk::ask(RouteNetlinkMessage::GetLink(question), 0);
        let answers = answers.map_err(|source| LinkError::Get { name: name.to_owned(), source })?;
        let link = answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        });
        let missing = || LinkError::Answer { name: name.to_owned(), what: "no link in it".to_owned() };
        let mut link = link.map(|link| Self::from_message(name, link)).ok_or_else(missing)?;
        // The attributes count the queues that were allocated; only those in use get frames.
        if let Some((rx, tx)) = Ethtool::open(link.index).ok().and_then(|e| e.channels().ok()) {
            link.rx_queues = rx;
            link.tx_queues = tx;
        }
        Ok(link)
    }

    /// Asks the kernel about every interface at once. Their queues are those that were allocated, of
    /// which fewer may be in use.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn all() -> io::Result<Vec<Self>> {
        let mut question = LinkMessage::default();
        question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let answers = talk::ask(RouteNetlinkMessage::GetLink(question), NLM_F_DUMP)?;
        let named = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(Self::from_message(name_of(link)?, link)),
            _ => None,
        });
        Ok(named.collect())
    }

    fn from_message(name: &str, message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: name.to_owned(),
            mac: None,
            mtu: 0,
            is_up: message.header.flags.contains(LinkFlags::Up),
            rx_queues: 1,
            tx_queues: 1,
            kind: None,
            peer_elsewhere: false,
            xdp: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Address(address) => link.mac = address.as_slice().try_into().ok(),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::NumRxQueues(count) => link.rx_queues = *count,
                LinkAttribute::NumTxQueues(count) => link.tx_queues = *count,
                LinkAttribute::LinkNetNsId(_) => link.peer_elsewhere = true,
                LinkAttribute::LinkInfo(infos) => link.kind = infos.iter().find_map(kind),
                LinkAttribute::Xdp(parts) => link.xdp = program(parts),
                _ => {}
            }
        }
        link
    }
}

fn name_of(message: &LinkMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

/// The program among the parts of `IFLA_XDP`. Where there are several, the native one: it sees
/// the frames first.
fn program(parts: &[LinkXdp]) -> Option<LinkProgram> {
    let find = |pick: fn(&LinkXdp) -> Option<u32>| parts.iter().find_map(pick);
    let driver = find(|part| if let LinkXdp::DrvProgId(id) = part { Some(*id) } else { None });
    let generic = find(|part| if let LinkXdp::SkbProgId(id) = part { Some(*id) } else { None });
    let device = find(|part| if let LinkXdp::HwProgId(id) = part { Some(*id) } else { None });
    let attached = parts.iter().find_map(|part| match part {
        LinkXdp::Attached(XdpAttached::None) => None,
        LinkXdp::Attached(attached) => Some(*attached),
        _ => None,
    })?;
    let any = find(|part| if let LinkXdp::ProgId(id) = part { Some(*id) } else { None });
    let (id, mode) = if attached == XdpAttached::SocketBuffer {
        (generic.or(any), XdpMode::Generic)
    } else if let Some(id) = driver {
        (Some(id), XdpMode::Native)
    } else if attached == XdpAttached::Hardware || device.is_some() {
        (device.or(any), XdpMode::Offloaded)
    } else {
        (any, XdpMode::Native)
    };
    Some(LinkProgram { id: id.unwrap_or_default(), mode })
}
