//! Drives the kernel's own packet generator, where the kernel has one.
//!
//! `pktgen` makes frames in the driver's context and needs no system call for any of them, so it
//! offers more than sockets can. What it sends has no numbers that a sink could check: arrivals
//! are counted by a device. See `Documentation/networking/pktgen.rst` of the kernel, and
//! `bench/pktgen/` for two machines with real NICs.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use vxlane_tests::LabError;
use vxlane_tests::lab::MacAddr;
use vxlane_tests::netns::Netns;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Length of the frames without FCS, in bytes.
    pub frame: usize,
    /// Number of flows, each with a source port of its own.
    pub flows: u16,
    /// Who is to receive.
    pub to: (MacAddr, Ipv4Addr),
    /// Who sends.
    pub from: Ipv4Addr,
    /// For how long.
    pub time: Duration,
}

/// Whether this kernel has pktgen, built in or loaded.
pub fn available() -> bool {
    Path::new(DIRECTORY).is_dir()
}

/// Sends `flood` out of `device` of `ns` and returns how many frames went.
///
/// # Errors
/// [`LabError::Syscall`] when pktgen refuses a setting, [`LabError::Unfit`] when it does not say
/// how many it sent.
pub fn flood(ns: &Netns, device: &str, flood: &Flood) -> Result<u64, LabError> {
    let failed = LabError::syscall("pktgen", device.to_owned());
    let text = ns.run(|| send(device, flood))?.map_err(failed)?;
    sent(&text).ok_or(LabError::Unfit { what: "pktgen did not say what it sent", text })
}

/// Runs on a thread inside the namespace: `/proc/thread-self/net` is that namespace's own.
fn send(device: &str, flood: &Flood) -> io::Result<String> {
    let file = |name: &str| format!("/proc/thread-self/net/pktgen/{name}");
    // One line a write: pktgen takes each write for one command.
    fs::write(file(THREAD), "rem_device_all\n")?;
    fs::write(file(THREAD), format!("add_device {device}\n"))?;
    for line in settings(flood) {
        fs::write(file(device), format!("{line}\n"))?;
    }
    let outcome = thread::scope(|scope| {
        // The write returns when the last frame is out, so somebody else has to end it. A thread
        // starts in the namespace of the one that made it.
        let running = scope.spawn(|| fs::write(file("pgctrl"), "start\n"));
        thread::sleep(flood.time);
        fs::write(file("pgctrl"), "stop\n")?;
        running.join().unwrap_or_else(|_| Err(io::Error::other("the thread that runs pktgen panicked")))
    });
    let text = fs::read_to_string(file(device));
    // Leaves the device to others, whatever became of the run.
    let cleared = fs::write(file(THREAD), "rem_device_all\n");
    outcome.and(cleared).and(text)
}

fn settings(flood: &Flood) -> Vec<String> {
    let Flood { frame, flows, to: (mac, address), from, .. } = flood;
    let last = FIRST_PORT + flows.max(&1) - 1;
    vec![
        "count 0".to_owned(),
        "clone_skb 0".to_owned(),
        "delay 0".to_owned(),
        format!("pkt_size {frame}"),
        format!("dst_mac {mac}"),
        format!("dst_min {address}"),
        format!("dst_max {address}"),
        format!("src_min {from}"),
        format!("src_max {from}"),
        format!("udp_src_min {FIRST_PORT}"),
        format!("udp_src_max {last}"),
        "udp_dst_min 9".to_owned(),
        "udp_dst_max 9".to_owned(),
    ]
}

/// The count in what a device's file says after a run.
fn sent(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("pkts-sofar: ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Where pktgen shows itself.
pub const DIRECTORY: &str = "/proc/net/pktgen";

/// The thread of the first processor.
const THREAD: &str = "kpktgend_0";

const FIRST_PORT: u16 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_frames_sent_is_read() {
        let text = "Current:\n     pkts-sofar: 1234  errors: 0\n     started: 5us\nResult: OK: 10(c5+d5) usec\n";
        assert_eq!(sent(text), Some(1234));
        assert_eq!(sent("Result: Idle\n"), None);
    }

    #[test]
    fn as_many_source_ports_as_flows_are_used() {
        let flood = Flood {
            frame: 64,
            flows: 16,
            to: (MacAddr::BROADCAST, Ipv4Addr::LOCALHOST),
            from: Ipv4Addr::LOCALHOST,
            time: Duration::ZERO,
        };
        let lines = settings(&flood);
        assert!(lines.contains(&"udp_src_max 10015".to_owned()), "{lines:?}");
    }
}
