//! The running dataplane with everything that control knows of it.
//!
//! One [`Daemon`] has the steering program, the workers and the plan; whoever asks or changes
//! something has it to himself meanwhile. Dropping it leaves every interface as it was found.

mod change;
mod default_routes;
mod express;
mod flows;
mod heard;
mod host_ports;
mod kept_sessions;
mod lanes;
mod metrics;
mod nat;
mod nat6;
mod nat_metrics;
mod neighbours;
mod next_hops;
mod ports;
mod published;
mod reconcile;
mod reload;
mod report;
mod resume;
mod saved;
mod stations;
mod translated;

use std::{collections::HashMap, fmt, io, path::PathBuf, sync::Arc, time::Instant};

use tokio::sync::Notify;
use vxlane_dataplane::{
    attach::{Role, Steer, SteerError, express::ExpressCounters, ours::Boards},
    engine::{Engine, EngineConfig, Pulse, WorkerGone},
    link::LinkError,
    port::xdp::{OpenError, XdpReceive, XdpTransmit},
    stats::PortCounters,
    tables::Tables,
    worker::Bell,
};

pub use change::ChangeError;
pub use express::LaneError;
pub use flows::FlowsError;
pub use metrics::MetricsError;
pub use nat::NatError;
pub use reconcile::Look;
pub use reload::ReloadError;
pub use report::{NoSuchEndpoint, NoSuchNetwork};
pub use resume::PauseError;
pub use saved::{RestoreError, restore};
pub use stations::FdbError;

use crate::{
    causes::chain,
    commit::{Exhausted, Ids, Surroundings},
    config::Control,
    desired::{Desired, Host, Owner, Plan},
    events::Events,
    host,
    keep::{Held, Keeper},
    store::Store,
};
use express::Lane;
use nat::WayOut;
use nat6::WayOut6;
use next_hops::{NextHops, Uplink};
use ports::OpenPort;
use published::HostSide;

/// A dataplane that forwards.
pub struct Daemon {
    // First, so that frames go to the host again before the workers end.
    lane: Option<Lane>,
    /// Why there is none, if there is none.
    no_lane: &'static str,
    /// When it was tried to have one.
    lane_tried: Instant,
    /// What lanes have counted that are no more.
    past: ExpressCounters,
    steer: Steer,
    engine: Engine<XdpReceive, XdpTransmit>,
    /// What is asked for, and what of it is done: the two always say the same.
    desired: Desired,
    plan: Plan,
    /// Where what the API asked for is kept.
    store: Box<dyn Store>,
    /// The host as it was at the start.
    host: Host,
    uplink: Uplink,
    ids: Ids,
    ports: Vec<OpenPort>,
    next_hops: NextHops,
    way_out: Option<WayOut>,
    way_out6: Option<WayOut6>,
    /// Where the ports that are lent were posted last.
    posted_on: Option<Boards>,
    host_side: HostSide,
    bell: Arc<Notify>,
    published: Surroundings,
    /// What the workers have.
    tables: Arc<Tables>,
    /// Why interfaces that wait could not be opened, as told last.
    complaints: HashMap<String, String>,
    events: Events,
    /// By network, what ports have counted that it had before.
    retired: HashMap<String, PortCounters>,
    started: Instant,
    /// When sessions of address translation were kept last.
    sessions_kept: Instant,
    /// Who keeps what is attached, should we end.
    keeper: Keeper,
    places: Places,
}

/// Where a daemon finds what it was started with.
#[derive(Clone, Debug)]
pub struct Places {
    /// The configuration file.
    pub file: PathBuf,
    /// What it said of the daemon itself.
    pub control: Control,
    /// The program that runs, and that goes on after a restart.
    pub program: PathBuf,
}

/// Where a daemon comes from, and what outlives it.
pub struct Estate {
    /// What of `desired` is not the file's.
    pub store: Box<dyn Store>,
    /// Who keeps what is attached.
    pub keeper: Keeper,
    /// What an earlier daemon has left attached.
    pub held: Held,
    /// Where it was started from.
    pub places: Places,
}

/// Why a dataplane did not start, or did not change. Nothing is left of it then.
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
    /// The express lane could not be had.
    #[error(transparent)]
    Lane(Box<LaneError>),
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
    /// The ports of this host that are in use could not be found out.
    #[error("looking for the ports that are in use")]
    Sockets(#[source] io::Error),
    /// Nothing is left of the ports that may be lent.
    #[error("nat.ports = \"{asked}\": all of them are among those the host gives to its own sockets, {ephemeral}")]
    NoPorts {
        /// As in the file.
        asked: String,
        /// `ip_local_port_range`.
        ephemeral: String,
    },
    /// A worker has ended.
    #[error(transparent)]
    Gone(#[from] WorkerGone),
}

impl Daemon {
    /// Starts to forward as `plan` says, which is what `desired` comes to on `host`, with
    /// what is there already.
    ///
    /// # Errors
    /// [`StartError`] says what could not be had; interfaces are then as they were found.
    pub fn start(desired: Desired, host: Host, plan: Plan, estate: Estate) -> Result<Self, StartError> {
        let Estate { store, keeper, held, places } = estate;
        let mut ids = Ids::default();
        held.tags().for_each(|(interface, tag)| ids.keep_port(interface, tag));
        ids.give(&plan)?;
        let uplink = Uplink::look(&plan.uplink)?;
        let mut steer = Steer::load()?;
        steer.ours().set_vtep(&plan.local, plan.outside).map_err(SteerError::Map)?;
        let config = EngineConfig { workers: plan.workers, cpus: plan.cpus.clone(), stations: plan.stations };
        let tables = Arc::new(Tables::new(plan.local));
        let engine = Engine::start(&config, &tables).map_err(StartError::Workers)?;
        let published = Surroundings { uplink_mac: uplink.mac, ..Surroundings::default() };
        let (ports, next_hops, started) = (Vec::new(), NextHops::new(), Instant::now());
        let (complaints, events) = (HashMap::new(), Events::default());
        let (way_out, way_out6, bell) = (None, None, Arc::new(Notify::new()));
        let mut this = Self {
            lane: None,
            no_lane: "",
            lane_tried: started,
            past: ExpressCounters::default(),
            steer,
            engine,
            desired,
            plan,
            store,
            host,
            uplink,
            ids,
            ports,
            next_hops,
            way_out,
            way_out6,
            posted_on: None,
            host_side: HostSide::default(),
            bell,
            published,
            tables,
            complaints,
            events,
            retired: HashMap::new(),
            started,
            sessions_kept: started,
            keeper,
            places,
        };
        this.hang_bell()?;
        this.next_hops = next_hops::look(&this.plan, uplink)?;
        this.resume(held)?;
        if this.lane.is_none() {
            this.make_lane();
        }
        let resumed = this.ports.len();
        this.open_all(resumed > 0)?;
        this.open_host_ports(&this.plan.clone());
        this.resolve()?;
        let opened = this.ports.split_off(resumed);
        this.expect(&opened);
        for port in opened {
            this.serve(&port)?;
            this.ports.push(port);
        }
        Ok(this)
    }

    /// Where it was started from.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// What is notified when a worker waits for something that [`refresh`](Self::refresh) finds out.
    pub fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    fn hang_bell(&self) -> Result<(), WorkerGone> {
        self.engine.workers().try_for_each(|worker| {
            let bell = Arc::clone(&self.bell);
            let bell = Bell::new(move || bell.notify_one());
            self.engine.ask(worker, move |worker| worker.ring_with(bell))
        })
    }

    /// Whether the workers make progress.
    pub fn pulse(&self) -> Pulse {
        self.engine.pulse()
    }

    /// What happens from now on, and what happened lately.
    pub fn events(&self) -> Events {
        self.events.clone()
    }

    fn is_open(&self, interface: &str) -> bool {
        self.ports.iter().any(|port| port.interface == interface)
    }

    /// Opens the uplink and the endpoints. One of an earlier life whose interface cannot be had
    /// is passed over; after a restart each of them is one.
    fn open_all(&mut self, restarted: bool) -> Result<(), StartError> {
        if !self.is_open(&self.plan.uplink) {
            self.open(&self.plan.uplink.clone(), Role::Uplink, self.plan.uplink_xdp)?;
        }
        for endpoint in self.desired.endpoints.clone() {
            let interface = &endpoint.item.interface;
            if self.is_open(interface) {
                continue;
            }
            let is_there = host::find(interface).map_err(StartError::Netlink)?.is_some();
            let may_wait = restarted || endpoint.owner == Owner::Api;
            let opened = match (may_wait, is_there) {
                (true, false) => {
                    tracing::warn!(interface, endpoint = endpoint.item.name, "is not there");
                    continue;
                }
                _ => self.open(interface, Role::Access, endpoint.item.xdp),
            };
            match (may_wait, opened) {
                (true, Err(error)) if !matches!(error, StartError::Gone(_)) => {
                    tracing::warn!(interface, endpoint = endpoint.item.name, error = chain(&error), "not attached");
                }
                (_, opened) => opened?,
            }
        }
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
                write!(out, ", uplink {} {} {copy}", uplink.interface, uplink.mode)
            }
            None => Ok(()),
        }
    }
}
