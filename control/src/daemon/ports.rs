//! Interfaces that our program and our sockets are on, coming and going.

use std::{fmt, os::fd::RawFd};

use vxlane_dataplane::{
    attach::{AttachMode, Role},
    express::Leg,
    ids::{PortId, QueueId, WorkerId},
    link::{Link, XdpMode},
    port::xdp::{self, XdpSocket},
};

use super::{Daemon, StartError};
use crate::{
    commit::{self, Exhausted},
    config::XdpChoice,
};

/// An interface that our program and our sockets are on.
#[derive(Clone, Debug)]
pub(super) struct OpenPort {
    pub(super) id: PortId,
    pub(super) interface: String,
    pub(super) role: Role,
    pub(super) ifindex: u32,
    pub(super) mode: Mode,
    pub(super) zero_copy: bool,
    /// Whether the interface was up when last seen.
    pub(super) is_up: bool,
    /// The largest MTU whose packets fit into the frames.
    pub(super) mtu: u32,
    /// Frames of each ring of each queue.
    pub(super) ring: u32,
    /// The worker of each queue.
    pub(super) workers: Vec<WorkerId>,
    /// The socket of each queue.
    pub(super) sockets: Vec<RawFd>,
    /// The names under which what it lives on is kept.
    pub(super) kept: Vec<String>,
}

/// How the frames of an interface get to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// By an XDP program and rings of its own.
    Rings(XdpMode),
    /// By the programs of the express lane, and its rings.
    Express(Leg),
}

impl OpenPort {
    /// Whether its frames come and go through the programs of the express lane.
    pub(super) fn is_in_lane(&self) -> bool {
        matches!(self.mode, Mode::Express(_))
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rings(mode) => mode.fmt(out),
            Self::Express(_) => out.write_str("express"),
        }
    }
}

/// Frames of each ring to the host itself at most: there is such a port on every network, and
/// few have much to say. A segment of 64 KiB is some 45 of them.
const HOST_RING: u32 = 512;
/// Frames that all access ports have together, as far as no port is left with less than
/// [`SMALLEST_RING`]: 256 MiB where a frame has half a page.
const POOL: u64 = 1 << 17;
/// A new port gets at most this part of what is left of the pool: the first few get all they
/// can use, and later ones less and less.
const SHARE: u64 = 32;
/// One burst.
const SMALLEST_RING: u32 = 64;

impl Daemon {
    /// Puts the program and the sockets on one interface. Frames go to the host as before, until
    /// [`serve`](Self::serve).
    pub(super) fn open(&mut self, interface: &str, role: Role, xdp: XdpChoice) -> Result<(), StartError> {
        let id = self.ids.port(interface).ok_or(Exhausted)?;
        let link = Link::get(interface)?;
        if let Some(leg) = self.leg(&link, role, id, xdp)
            && let Some(port) = self.open_leg(interface, role, id, &link, leg)
        {
            self.admit(id)?;
            tracing::info!(interface, mode = %port.mode, "open");
            self.ports.push(port);
            return Ok(());
        }
        let port = self.open_rings(interface, role, id, &link, attach_mode(xdp), self.plan.ring)?;
        tracing::info!(interface, mode = %port.mode, port.zero_copy, port.ring, "attached");
        self.ports.push(port);
        Ok(())
    }

    /// The same for the end of a pair to the host itself.
    pub(super) fn open_host(&mut self, interface: &str) -> Result<(), StartError> {
        let id = self.ids.port(interface).ok_or(Exhausted)?;
        let (link, most) = (Link::get(interface)?, self.plan.ring.min(HOST_RING));
        let port = self.open_rings(interface, Role::Access, id, &link, AttachMode::Native, most)?;
        tracing::info!(interface, mode = %port.mode, port.ring, "attached, to the host");
        self.ports.push(port);
        Ok(())
    }

    /// Opens the rings through which the frames of the express lane come and go.
    pub(super) fn open_ring(&mut self, interface: &str, id: PortId) -> Result<OpenPort, StartError> {
        let link = Link::get(interface)?;
        let port = self.open_rings(interface, Role::Lane, id, &link, AttachMode::Native, self.plan.ring)?;
        self.serve(&port)?;
        Ok(port)
    }

    /// Opens the rings of an interface, of at most so many frames each.
    fn open_rings(
        &mut self,
        interface: &str,
        role: Role,
        id: PortId,
        link: &Link,
        mode: AttachMode,
        most: u32,
    ) -> Result<OpenPort, StartError> {
        let workers = commit::place(link.rx_queues, &mut self.loads());
        let ring = self.ring(role, most, workers.len());
        let attached = self.steer.attach(interface, role, mode, link.rx_queues)?;
        let mut port = OpenPort {
            id,
            interface: interface.to_owned(),
            role,
            ifindex: attached.ifindex,
            mode: Mode::Rings(attached.mode),
            zero_copy: true,
            is_up: link.is_up,
            mtu: u32::MAX,
            ring,
            workers,
            sockets: Vec::new(),
            kept: Vec::new(),
        };
        if let Err(error) = self.open_queues(&mut port) {
            self.close(&port);
            return Err(error);
        }
        self.keep(&mut port);
        Ok(port)
    }

    fn open_queues(&self, port: &mut OpenPort) -> Result<(), StartError> {
        let (id, tagged) = (port.id, port.role == Role::Lane);
        for (queue, &worker) in (0..).zip(&port.workers) {
            let mut config = xdp::Config::new(&port.interface, u32::from(queue));
            (config.rx_frames, config.tx_frames) = (port.ring, port.ring);
            let (receive, transmit) = XdpSocket::open(&config)?;
            port.zero_copy &= receive.zero_copy();
            port.mtu = port.mtu.min(receive.longest_mtu());
            port.sockets.push(receive.socket());
            let queue = QueueId(queue);
            let opened = self.engine.ask(worker, move |worker| match tagged {
                true => worker.open_tagged(id, queue, receive, transmit),
                false => worker.open(id, queue, receive, transmit),
            });
            opened?.map_err(StartError::Workers)?;
        }
        Ok(())
    }

    /// Has the frames of a port that is open go to its workers.
    pub(super) fn serve(&mut self, port: &OpenPort) -> Result<(), StartError> {
        if let Mode::Express(_) = port.mode {
            return self.attach_leg(port);
        }
        for (queue, &socket) in (0..).zip(&port.sockets) {
            self.steer.serve(port.ifindex, queue, socket)?;
        }
        Ok(())
    }

    /// Leaves an interface as it was found. No table may name the port any more.
    pub(super) fn close(&mut self, port: &OpenPort) {
        self.keep_no_longer(&port.kept);
        match port.mode {
            Mode::Express(_) => self.detach_leg(port),
            Mode::Rings(_) => {
                if let Err(error) = self.steer.detach(port.ifindex) {
                    tracing::warn!(interface = port.interface, %error, "detaching");
                }
            }
        }
        let id = port.id;
        for &worker in &port.workers {
            // The halves are closed here, not in the worker, which has packets to see to.
            let closed = self.engine.ask(worker, move |worker| worker.close(id));
            if let Err(error) = closed {
                tracing::warn!(interface = port.interface, %error, "closing");
            }
        }
        tracing::info!(interface = port.interface, "detached");
    }

    /// How many queues each worker has.
    pub(super) fn loads(&self) -> Vec<usize> {
        let mut loads = vec![0; self.plan.workers.max(1)];
        let with_rings = self.ports.iter().filter(|port| matches!(port.mode, Mode::Rings(_)));
        for worker in with_rings.flat_map(|port| &port.workers) {
            loads[worker.index()] += 1;
        }
        loads
    }

    /// Frames of each ring of a new port with so many queues: not more than `most`.
    fn ring(&self, role: Role, most: u32, queues: usize) -> u32 {
        let has_rings = |port: &&OpenPort| port.role == Role::Access && matches!(port.mode, Mode::Rings(_));
        let access = self.ports.iter().filter(has_rings);
        let in_use = access.map(|port| frames(port.ring, port.workers.len())).sum();
        match role {
            Role::Uplink | Role::Lane => most,
            Role::Access => fair_ring(most, in_use, queues),
        }
    }
}

/// The largest power of two that leaves the pool to others, too.
fn fair_ring(most: u32, in_use: u64, queues: usize) -> u32 {
    let share = POOL.saturating_sub(in_use) / SHARE / frames(1, queues).max(1);
    let fair = u32::try_from(share).unwrap_or(u32::MAX).checked_ilog2().map_or(0, |log| 1 << log);
    fair.clamp(SMALLEST_RING, most.max(SMALLEST_RING))
}

/// A queue has as many frames to receive into as to send from.
fn frames(ring: u32, queues: usize) -> u64 {
    2 * u64::from(ring) * queues as u64
}

fn attach_mode(choice: XdpChoice) -> AttachMode {
    match choice {
        XdpChoice::Auto => AttachMode::Auto,
        XdpChoice::Native => AttachMode::Native,
        XdpChoice::Generic => AttachMode::Generic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_ports_get_all_they_can_use_and_many_share_a_bounded_pool() {
        let (mut in_use, mut rings) = (0, Vec::new());
        for _ in 0..256 {
            let ring = fair_ring(1024, in_use, 1);
            in_use += frames(ring, 1);
            rings.push(ring);
        }
        assert_eq!((rings[0], rings[32], rings[33], rings[255]), (1024, 1024, 512, 64));
        assert!(rings.is_sorted_by(|a, b| a >= b));
        assert!(in_use * 2048 <= 300 << 20, "{in_use} frames");
    }

    #[test]
    fn a_ring_is_never_longer_than_asked_for_nor_shorter_than_a_burst() {
        assert_eq!(fair_ring(256, 0, 1), 256);
        assert_eq!(fair_ring(1024, POOL * 2, 8), 64);
        assert_eq!(fair_ring(1024, 0, 8), 256);
    }
}
