//! The filters of the clsact queueing discipline of an interface, of whomever they are.

#![expect(clippy::wildcard_enum_match_arm, reason = "netlink's enums have no end")]

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};

use super::talk::ask;

/// A filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The lower, the earlier.
    pub(crate) priority: u16,
    /// Among those of that priority.
    pub(crate) handle: u32,
    /// The number of its BPF program, if it has one.
    pub(crate) program: Option<u32>,
}

/// `include/uapi/linux/pkt_sched.h`: `TC_H_CLSACT` with `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS`.
const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0xfff2 };
const EGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0xfff3 };
/// The discipline itself, and where it hangs.
const CLSACT: TcHandle = TcHandle { major: 0xffff, minor: 0 };
const CLSACT_PARENT: TcHandle = TcHandle { major: 0xffff, minor: 0xfff1 };

/// The filters of what comes in at the interface.
///
/// # Errors
/// What the kernel answered to `RTM_GETTFILTER`. An interface without the discipline has none.
pub(crate) fn on_ingress(index: u32) -> io::Result<Vec<Found>> {
    filters(index, INGRESS)
}

/// Whether there are no filters at all.
///
/// # Errors
/// As [`on_ingress`].
pub(crate) fn is_clsact_empty(index: u32) -> io::Result<bool> {
    Ok(filters(index, INGRESS)?.is_empty() && filters(index, EGRESS)?.is_empty())
}

/// Takes the discipline away, and every filter with it.
///
/// # Errors
/// What the kernel answered to `RTM_DELQDISC`.
pub(crate) fn remove_clsact(index: u32) -> io::Result<()> {
    let mut message = of(index, CLSACT_PARENT)?;
    message.header.handle = CLSACT;
    ask(RouteNetlinkMessage::DelQueueDiscipline(message), NLM_F_ACK).map(drop)
}

fn filters(index: u32, parent: TcHandle) -> io::Result<Vec<Found>> {
    let answers = ask(RouteNetlinkMessage::GetTrafficFilter(of(index, parent)?), NLM_F_DUMP)?;
    let all = answers.iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewTrafficFilter(message) => found(message),
        _ => None,
    });
    Ok(all.collect())
}

/// A dump has an entry without handle for each priority, too.
fn found(message: &TcMessage) -> Option<Found> {
    let handle = u32::from(message.header.handle);
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let program = options.into_iter().flatten().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(number)) => Some(*number),
        _ => None,
    });
    let priority = u16::try_from(message.header.info >> 16).ok()?;
    (handle != 0).then_some(Found { priority, handle, program })
}

fn of(index: u32, parent: TcHandle) -> io::Result<TcMessage> {
    let mut message = TcMessage::default();
    message.header.index = i32::try_from(index).map_err(io::Error::other)?;
    message.header.parent = parent;
    Ok(message)
}
