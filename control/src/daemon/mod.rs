//! The running dataplane with everything that control knows of it.
//!
//! One [`Daemon`] has the steering program, the workers and the plan; whoever asks or changes
//! something has it to himself meanwhile. Dropping it leaves every interface as it was found.

mod change;
mod nat;
mod next_hops;
mod ports;
mod published;
mod reconcile;
mod report;
mod saved;
mod stations;

use std::{collections::HashMap, fmt, io, sync::Arc, time::Instant};

use tokio::sync::Notify;
use vxlane_dataplane::{
    attach::{Role, Steer, SteerError},
    engine::{Engine, EngineConfig, Pulse, WorkerGone},
    link::LinkError,
    port::xdp::{OpenError, XdpReceive, XdpTransmit},
    tables::{LocalVtep, Tables},
    worker::Bell,
};

pub use change::ChangeError;
pub use nat::NatError;
pub use reconcile::Look;
pub use report::{NoSuchEndpoint, NoSuchNetwork};
pub use saved::{RestoreError, restore};
pub use stations::FdbError;

use crate::{
    causes::chain,
    commit::{Exhausted, Ids, Surroundings},
    desired::{Desired, Host, Owner, Plan},
    events::Events,
    host,
    store::Store,
};
use nat::WayOut;
use next_hops::{NextHops, Uplink};
use ports::OpenPort;
use published::HostSide;

/// A dataplane that forwards.
pub struct Daemon {
    // First, so that frames go to the host again before the workers end.
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
    host_side: HostSide,
    bell: Arc<Notify>,
    published: Surroundings,
    /// Why interfaces that wait could not be opened, as told last.
    complaints: HashMap<String, String>,
    events: Events,
    started: Instant,
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
    /// Starts to forward as `plan` says, which is what `desired` comes to on `host`. Changes are
    /// kept in `store`, which has what of `desired` is not the file's.
    ///
    /// # Errors
    /// [`StartError`] says what could not be had; interfaces are then as they were found.
    pub fn start(desired: Desired, host: Host, plan: Plan, store: Box<dyn Store>) -> Result<Self, StartError> {
        let mut ids = Ids::default();
        ids.give(&plan)?;
        let uplink = Uplink::look(&plan.uplink)?;
        let mut steer = Steer::load()?;
        steer.set_vtep(plan.address, plan.port)?;
        let config = EngineConfig { workers: plan.workers, cpus: plan.cpus.clone(), stations: plan.stations };
        let tables = Tables::new(LocalVtep { address: plan.address, port: plan.port });
        let engine = Engine::start(&config, &Arc::new(tables)).map_err(StartError::Workers)?;
        let published = Surroundings {
            uplink_mac: uplink.mac,
            next_hops: [].into(),
            owners: [].into(),
            ways: None,
            published: [].into(),
        };
        let (ports, next_hops, started) = (Vec::new(), NextHops::new(), Instant::now());
        let (complaints, events) = (HashMap::new(), Events::default());
        let (way_out, bell) = (None, Arc::new(Notify::new()));
        let mut this = Self {
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
            host_side: HostSide::default(),
            bell,
            published,
            complaints,
            events,
            started,
        };
        this.hang_bell()?;
        this.open_all()?;
        this.resolve()?;
        for port in this.ports.clone() {
            this.serve(&port)?;
        }
        Ok(this)
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

    /// Opens the uplink and the endpoints. One of an earlier life whose interface cannot be had
    /// is passed over.
    fn open_all(&mut self) -> Result<(), StartError> {
        self.open(&self.plan.uplink.clone(), Role::Uplink, self.plan.uplink_xdp)?;
        for endpoint in self.desired.endpoints.clone() {
            let interface = &endpoint.item.interface;
            let is_there = host::find(interface).map_err(StartError::Netlink)?.is_some();
            let opened = match (endpoint.owner, is_there) {
                (Owner::Api, false) => {
                    tracing::warn!(interface, endpoint = endpoint.item.name, "is not there");
                    continue;
                }
                _ => self.open(interface, Role::Access, endpoint.item.xdp),
            };
            match (endpoint.owner, opened) {
                (Owner::Api, Err(error)) if !matches!(error, StartError::Gone(_)) => {
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
                write!(out, ", uplink {} {} {copy}", uplink.interface, uplink.attached.mode)
            }
            None => Ok(()),
        }
    }
}
