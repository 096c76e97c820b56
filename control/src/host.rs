//! What this process may do and what this host has.

use std::{collections::HashMap, fs, io};

use nix::{
    sched::{CpuSet, sched_getaffinity},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::Pid,
};
use vxlane_dataplane::{
    attach::express,
    link::{Link, LinkError},
};

use crate::{
    desired::{Desired, Device, Host},
    netlink,
};

/// Capabilities without which nothing works, by bit (`include/uapi/linux/capability.h`).
const NEEDED: [(u8, &str); 3] = [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (CAP_BPF, "CAP_BPF")];
const CAP_BPF: u8 = 39;
/// Stands in for `CAP_BPF` on kernels before 5.8.
const SYS_ADMIN: u8 = 21;

/// The capabilities that this process lacks to attach programs and open sockets.
///
/// # Errors
/// If the kernel does not say which it has.
pub(crate) fn missing_privilege() -> io::Result<Vec<&'static str>> {
    Ok(missing_capabilities(&fs::read_to_string("/proc/self/status")?))
}

/// What of [`NEEDED`] is not in the effective set that `/proc/self/status` shows.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
    let has = |bit: u8| effective >> bit & 1 == 1;
    let missing = NEEDED.iter().filter(|&&(bit, _)| !(has(bit) || bit == CAP_BPF && has(SYS_ADMIN)));
    missing.map(|&(_, name)| name).collect()
}

/// Has this process have as many descriptors as it may: every endpoint takes one in the express lane,
/// and three for each queue otherwise. The limit as it is found is most often 1,024.
pub(crate) fn lift_descriptor_limit() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where that is refused there is room for fewer endpoints, and the first too many is told.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Everything about this host that `desired` depends on.
///
/// # Errors
/// If the kernel does not say. That an interface is missing is no error here.
pub(crate) fn look(desired: &Desired) -> io::Result<Host> {
    let links = devices(desired.interfaces())?;
    let uplink = find(&desired.underlay.interface)?;
    let addresses = uplink.map(|link| netlink::global_addresses(link.index)).transpose()?;
    let (address, address_v6) = addresses.unwrap_or_default();
    Ok(Host { cpus: cpus()?, address, address_v6, links })
}

/// What is to be known of the interfaces called `names`; those that are missing are left out.
///
/// # Errors
/// If the kernel does not say.
pub(crate) fn devices<'a>(names: impl Iterator<Item = &'a str>) -> io::Result<HashMap<String, Device>> {
    let found = names.filter_map(|name| Some(find(name).transpose()?.map(|link| (name.to_owned(), device(&link)))));
    found.collect()
}

/// The interface called `name`, if there is one.
///
/// # Errors
/// If the kernel does not say.
pub(crate) fn find(name: &str) -> io::Result<Option<Link>> {
    if !(1..=15).contains(&name.len()) {
        return Ok(None);
    }
    match Link::get(name) {
        Ok(link) => Ok(Some(link)),
        Err(LinkError::Get { source, .. }) if source.raw_os_error() == Some(nix::libc::ENODEV) => Ok(None),
        Err(LinkError::Get { source, .. }) => Err(source),
        Err(error @ LinkError::Answer { .. }) => Err(io::Error::other(error)),
    }
}

fn device(link: &Link) -> Device {
    let xdp = link.xdp.as_ref().map(|program| format!("the {} XDP program {}", program.mode, program.id));
    let ours = || express::on(&link.name).map(|id| format!("program {id} of another vxlane's express lane"));
    Device { mtu: link.mtu, is_ethernet: link.mac.is_some(), program: xdp.or_else(ours) }
}

fn cpus() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).collect())
}

#[cfg(test)]
mod tests {
    use super::missing_capabilities;

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(missing_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n"), [""; 0]);
        assert_eq!(missing_capabilities("CapEff:\t0000000000003000\n"), ["CAP_BPF"]);
        assert_eq!(missing_capabilities("CapEff:\t0000000000203000\n"), [""; 0]);
        assert_eq!(missing_capabilities(""), ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"]);
    }
}
