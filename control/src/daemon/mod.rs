//! The running dataplane with everything that control knows of it.
//!
//! One [`Daemon`] has the steering program, the workers and the plan; whoever asks or changes
//! something has it to himself meanwhile. Dropping it leaves every interface as it was found.

mod report;

use std::{
    collections::BTreeMap,
    fmt, io,
    net::Ipv4Addr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use vxlane_dataplane::{
    attach::{AttachMode, Attached, Role, Steer, SteerError},
    engine::{Engine, EngineConfig, Pulse, WorkerGone},
    ids::{PortId, QueueId, WorkerId},
    link::{Link, LinkError},
    port::xdp::{self, OpenError, XdpReceive, XdpSocket, XdpTransmit},
    wire::MacAddr,
};

pub use report::{FdbError, NoSuchNetwork};

use crate::{
    commit::{self, Exhausted, Ids, Surroundings},
    config::XdpChoice,
    desired::Plan,
    netlink::{self, NextHop},
};

/// A dataplane that forwards.
pub struct Daemon {
    // First, so that frames go to the host again before the workers end.
    steer: Steer,
    engine: Engine<XdpReceive, XdpTransmit>,
    plan: Plan,
    uplink: Uplink,
    ids: Ids,
    ports: Vec<OpenPort>,
    next_hops: BTreeMap<Ipv4Addr, NextHop>,
    published: Surroundings,
    started: Instant,
}

/// What we know of the uplink device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Uplink {
    index: u32,
    mtu: u32,
}

/// An interface that our program and our sockets are on.
#[derive(Clone, Debug)]
struct OpenPort {
    id: PortId,
    interface: String,
    role: Role,
    attached: Attached,
    zero_copy: bool,
    /// The worker of each queue.
    workers: Vec<WorkerId>,
}

/// An interface that is to be opened.
struct Opening {
    id: PortId,
    link: Link,
    role: Role,
    xdp: XdpChoice,
    /// The worker of each queue.
    workers: Vec<WorkerId>,
}

/// Why a dataplane did not start. Nothing is left of it then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An interface could not be looked at.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The uplink cannot carry Ethernet frames.
    #[error("{0} has no Ethernet address")]
    NoMac(String),
    /// The steering program could not be put where it belongs.
    #[error(transparent)]
    Steer(#[from] SteerError),
    /// A queue could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The worker threads could not be started, or a queue not be watched.
    #[error("starting the workers")]
    Workers(#[source] io::Error),
    /// Too much of something.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The kernel would not say how peers are reached, or what is going on.
    #[error("asking the kernel about next hops")]
    Netlink(#[source] io::Error),
    /// A worker has ended.
    #[error(transparent)]
    Gone(#[from] WorkerGone),
}

impl Daemon {
    /// Starts to forward as `plan` says.
    ///
    /// # Errors
    /// [`StartError`] says what could not be had; interfaces are then as they were found.
    pub fn start(plan: Plan) -> Result<Self, StartError> {
        let mut ids = Ids::default();
        ids.give(&plan)?;
        let openings = openings(&plan, &ids)?;
        let (uplink, published) = surroundings(&plan, &openings)?;
        let mut steer = Steer::load()?;
        steer.set_vtep(plan.address, plan.port)?;
        let config = EngineConfig { workers: plan.workers, cpus: plan.cpus.clone(), stations: plan.stations };
        let tables = Arc::new(commit::commit(&plan, &ids, &published));
        let engine = Engine::start(&config, &tables).map_err(StartError::Workers)?;
        let (ports, next_hops, started) = (Vec::new(), BTreeMap::new(), Instant::now());
        let mut daemon = Self { steer, engine, plan, uplink, ids, ports, next_hops, published, started };
        daemon.resolve()?;
        for opening in openings {
            daemon.open(opening)?;
        }
        Ok(daemon)
    }

    /// Has the kernel ask for every next hop and waits a moment for the answers, so that the
    /// first frames of the endpoints find the way open.
    fn resolve(&mut self) -> Result<(), StartError> {
        let deadline = Instant::now() + RESOLVE;
        self.refresh()?;
        self.solicit();
        let unknown = |daemon: &Self| daemon.next_hops.values().any(NextHop::is_awaited);
        while unknown(self) && Instant::now() < deadline {
            thread::sleep(RESOLVE / 100);
            self.refresh()?;
        }
        Ok(())
    }

    /// Whether the workers make progress.
    pub fn pulse(&self) -> Pulse {
        self.engine.pulse()
    }

    /// Looks anew at how peers are reached, and gives the workers new tables if that has
    /// changed. Returns whether it has.
    ///
    /// # Errors
    /// If the kernel does not say, or a worker has ended.
    pub fn refresh(&mut self) -> Result<bool, StartError> {
        let link = Link::get(&self.plan.uplink)?;
        let uplink_mac = mac(&link)?;
        self.uplink = Uplink { index: link.index, mtu: link.mtu };
        let peers = self.plan.networks.iter().flat_map(|network| &network.peers);
        let found = peers.map(|&peer| Ok((peer, netlink::next_hop(link.index, peer)?)));
        self.next_hops = found.collect::<Result<_, _>>().map_err(StartError::Netlink)?;
        let known = self.next_hops.iter().filter_map(|(&peer, next_hop)| Some((peer, next_hop.mac()?)));
        let now = Surroundings { uplink_mac, next_hops: known.collect(), owners: self.published.owners.clone() };
        if now == self.published {
            return Ok(false);
        }
        self.engine.publish(&Arc::new(commit::commit(&self.plan, &self.ids, &now)))?;
        tracing::info!(next_hops = ?now.next_hops, "published");
        self.published = now;
        Ok(true)
    }

    /// Has the kernel ask for every next hop that is not known, or not known to be still there.
    pub fn solicit(&self) {
        for next_hop in self.next_hops.values() {
            if let NextHop::Via { neighbour, stale: true, .. } = *next_hop
                && let Err(error) = netlink::solicit(self.uplink.index, neighbour)
            {
                tracing::warn!(%neighbour, %error, "the kernel does not ask for the neighbour");
            }
        }
    }

    /// Puts the program and the sockets on one interface.
    fn open(&mut self, opening: Opening) -> Result<(), StartError> {
        let Opening { id, link, role, xdp, workers } = opening;
        let queues = u32::try_from(workers.len()).unwrap_or(u32::MAX);
        let attached = self.steer.attach(&link.name, role, attach_mode(xdp), queues)?;
        let mut zero_copy = true;
        for (queue, &worker) in (0..).zip(&workers) {
            let mut config = xdp::Config::new(&link.name, u32::from(queue));
            (config.rx_frames, config.tx_frames) = (self.plan.ring, self.plan.ring);
            let (receive, transmit) = XdpSocket::open(&config)?;
            zero_copy &= receive.zero_copy();
            let socket = receive.socket();
            let opened = self.engine.ask(worker, move |worker| worker.open(id, QueueId(queue), receive, transmit));
            opened?.map_err(StartError::Workers)?;
            self.steer.serve(link.index, u32::from(queue), socket)?;
        }
        tracing::info!(interface = link.name, mode = %attached.mode, zero_copy, "attached");
        self.ports.push(OpenPort { id, interface: link.name, role, attached, zero_copy, workers });
        Ok(())
    }
}

impl fmt::Display for Daemon {
    /// What it does, on one line.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (networks, endpoints) = (self.plan.networks.len(), self.plan.endpoints.len());
        write!(out, "{networks} networks, {endpoints} endpoints")?;
        match self.ports.iter().find(|port| port.role == Role::Uplink) {
            Some(uplink) => {
                let copy = if uplink.zero_copy { "zero-copy" } else { "copy" };
                write!(out, ", uplink {} {} {copy}", uplink.interface, uplink.attached.mode)
            }
            None => Ok(()),
        }
    }
}

/// How long the start waits for next hops that do not answer: many times what a neighbour takes,
/// and still short when one is down.
const RESOLVE: Duration = Duration::from_millis(500);

/// Every interface of the plan, the uplink first, with the worker of each of its queues.
fn openings(plan: &Plan, ids: &Ids) -> Result<Vec<Opening>, StartError> {
    let uplink = (plan.uplink.as_str(), Role::Uplink, plan.uplink_xdp);
    let endpoints = plan.endpoints.iter().map(|endpoint| (endpoint.interface.as_str(), Role::Access, endpoint.xdp));
    let mut openings = Vec::new();
    for (name, role, xdp) in [uplink].into_iter().chain(endpoints) {
        let id = ids.port(name).ok_or(Exhausted)?;
        openings.push(Opening { id, link: Link::get(name)?, role, xdp, workers: Vec::new() });
    }
    let queues = |opening: &Opening| u16::try_from(opening.link.rx_queues).unwrap_or(u16::MAX);
    let queues: Vec<u16> = openings.iter().map(queues).collect();
    let workers = u16::try_from(plan.workers).unwrap_or(u16::MAX);
    for (opening, workers) in openings.iter_mut().zip(commit::place(&queues, workers)) {
        opening.workers = workers;
    }
    Ok(openings)
}

/// What there is to say before any next hop is known.
fn surroundings(plan: &Plan, openings: &[Opening]) -> Result<(Uplink, Surroundings), StartError> {
    let no_mac = || StartError::NoMac(plan.uplink.clone());
    let link = openings.first().map(|opening| &opening.link).ok_or_else(no_mac)?;
    let owners = openings.iter().filter_map(|opening| Some((opening.id, *opening.workers.first()?)));
    let around = Surroundings { uplink_mac: mac(link)?, next_hops: BTreeMap::new(), owners: owners.collect() };
    Ok((Uplink { index: link.index, mtu: link.mtu }, around))
}

fn mac(link: &Link) -> Result<MacAddr, StartError> {
    link.mac.map(MacAddr).ok_or_else(|| StartError::NoMac(link.name.clone()))
}

fn attach_mode(choice: XdpChoice) -> AttachMode {
    match choice {
        XdpChoice::Auto => AttachMode::Auto,
        XdpChoice::Native => AttachMode::Native,
        XdpChoice::Generic => AttachMode::Generic,
    }
}
