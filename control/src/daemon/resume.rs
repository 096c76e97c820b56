//! From one process to the next while traffic flows.
//!
//! The one that goes leaves its descriptors with a [`Keeper`]; the one that comes takes the ports
//! over as they are. Frames wait in the rings meanwhile, so a port must not be served before the
//! workers know where everything goes, and before every other port can send.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Seek, Write},
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use vxlane_dataplane::{
    attach::Role,
    bridge::Origin,
    engine::WorkerGone,
    ids::{NetworkId, PortId, QueueId, WorkerId},
    link::Link,
    port::xdp::{XdpReceive, XdpSocket, XdpTransmit},
    wire::MacAddr,
};

use super::{
    Daemon, StartError,
    ports::{Mode, OpenPort},
};
use crate::{
    api::types::{Station, StationState},
    causes::chain,
    commit::{self, RING},
    keep::{Held, HeldPort, Keeper, Names, SESSIONS, SESSIONS6, STATIONS},
    mac::Mac,
};

/// Why nothing can be handed over.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// There is nobody to hand it to.
    #[error("starting a holder")]
    Keeper(#[source] io::Error),
    /// A worker has ended.
    #[error(transparent)]
    Gone(#[from] WorkerGone),
}

/// A queue that was taken over and is not served yet.
type Queue = (PortId, QueueId, XdpReceive, XdpTransmit);
/// Such queues, by the worker that is to serve them.
pub(super) type Queues = BTreeMap<WorkerId, Vec<Queue>>;

impl Daemon {
    /// Takes over every port of the plan that an earlier process has left, with what it had
    /// learned. Whatever cannot be taken over is detached, and opened anew by others.
    ///
    /// # Errors
    /// [`StartError::Gone`]
    pub(super) fn resume(&mut self, mut held: Held) -> Result<(), StartError> {
        let mut queues = Queues::new();
        self.resume_lane(&mut held, &mut queues)?;
        let uplink = (self.plan.uplink.clone(), Role::Uplink);
        let access = self.plan.access().map(|interface| (interface.clone(), Role::Access));
        for (interface, role) in std::iter::once(uplink).chain(access).collect::<Vec<_>>() {
            let Some(port) = held.take(&interface) else { continue };
            let names = port.names.clone();
            let resumed = match port.leg {
                Some(_) => self.resume_leg(&interface, role, port),
                None => self.resume_port(&interface, role, port, &mut queues),
            };
            match resumed {
                Ok(port) => self.ports.push(port),
                Err(reason) => {
                    tracing::warn!(interface, reason, "not taken over, but opened anew");
                    self.keep_no_longer(&names);
                }
            }
        }
        let (stations, sessions, sessions6) = (held.stations.take(), held.sessions.take(), held.sessions6.take());
        self.keep_no_longer(&held.detach());
        self.keep_no_longer(&[STATIONS, SESSIONS, SESSIONS6].map(str::to_owned));
        if self.ports.is_empty() && queues.is_empty() {
            return Ok(());
        }
        self.publish()?;
        if let Some(stations) = stations
            && let Err(error) = self.recall(stations.into())
        {
            tracing::warn!(%error, "stations have to be learned anew");
        }
        self.recall_sessions::<Ipv4Addr>(sessions);
        self.recall_sessions::<Ipv6Addr>(sessions6);
        self.take_over_programs();
        self.serve_resumed(queues)?;
        self.take_over_lane()
    }

    /// Takes over one port, up to where frames wait for a worker.
    pub(super) fn resume_port(
        &mut self,
        interface: &str,
        role: Role,
        held: HeldPort,
        queues: &mut Queues,
    ) -> Result<OpenPort, String> {
        let told = |error: &dyn std::error::Error| chain(error).to_string();
        let program = held.link.ok_or("its program was not kept")?;
        let name = if role == Role::Lane { RING } else { interface };
        let (Some(id), Ok(link)) = (self.ids.port(name), Link::get(interface)) else {
            program.detach();
            return Err("the interface is gone".to_owned());
        };
        let mut opened = Vec::new();
        for (queue, kept) in held.queues {
            let ring = kept.rx_frames();
            match XdpSocket::resume(kept, interface) {
                Ok((receive, transmit)) if usize::from(queue) == opened.len() => opened.push((ring, receive, transmit)),
                Ok(_) => break,
                Err(error) => {
                    program.detach();
                    return Err(told(&error));
                }
            }
        }
        if opened.is_empty() || u32::try_from(opened.len()) != Ok(link.rx_queues) {
            program.detach();
            return Err("it has other queues than it had".to_owned());
        }
        let sockets: Vec<_> = opened.iter().map(|(_, receive, _)| receive.socket()).collect();
        let attached = self.steer.resume(interface, role, program, &sockets).map_err(|error| told(&error))?;
        let workers = commit::place(link.rx_queues, &mut self.loads());
        let port = OpenPort {
            id,
            interface: interface.to_owned(),
            role,
            ifindex: attached.ifindex,
            mode: Mode::Rings(attached.mode),
            zero_copy: false,
            is_up: link.is_up,
            mtu: opened.iter().map(|(_, receive, _)| receive.longest_mtu()).min().unwrap_or(0),
            ring: opened.first().map_or(0, |(ring, ..)| *ring),
            workers: workers.clone(),
            sockets,
            kept: held.names,
        };
        tracing::info!(interface, mode = %attached.mode, port.ring, "taken over");
        for ((queue, (_, receive, transmit)), worker) in (0..).zip(opened).zip(workers) {
            queues.entry(worker).or_default().push((id, QueueId(queue), receive, transmit));
        }
        Ok(port)
    }

    /// Puts our steering program in the place of the earlier one everywhere. Not before sessions
    /// have their ports again: the host would answer what is for these, with a reset.
    fn take_over_programs(&mut self) {
        let ring = self.lane.as_ref().map(|lane| lane.ring.ifindex);
        let ports = self.ports.iter().filter(|port| matches!(port.mode, Mode::Rings(_))).map(|port| port.ifindex);
        for ifindex in ports.chain(ring).collect::<Vec<_>>() {
            if let Err(error) = self.steer.take_over(ifindex) {
                tracing::warn!(ifindex, %error, "the earlier program stays until the interface is seen to be gone");
            }
        }
    }

    /// Gives the workers what was taken over: all exits, then all inlets.
    fn serve_resumed(&mut self, queues: Queues) -> Result<(), StartError> {
        let mut inlets = Vec::new();
        let ring = self.ids.port(RING);
        for (worker, queues) in queues {
            let (mut exits, mut receives) = (Vec::new(), Vec::new());
            for (port, queue, receive, transmit) in queues {
                exits.push((port, transmit));
                receives.push((port, queue, receive));
            }
            self.engine.ask(worker, move |worker| {
                exits.into_iter().for_each(|(port, transmit)| worker.open_exit(port, transmit));
            })?;
            inlets.push((worker, receives));
        }
        for (worker, receives) in inlets {
            let opened = self.engine.ask(worker, move |worker| {
                receives.into_iter().try_for_each(|(port, queue, receive)| {
                    worker.open_inlet(port, queue, receive)?;
                    if ring == Some(port) {
                        worker.have_tagged(port);
                    }
                    io::Result::Ok(())
                })
            });
            opened?.map_err(StartError::Workers)?;
        }
        Ok(())
    }

    /// Has everything that is attached kept by `keeper`, from now on.
    pub(super) fn keep_with(&mut self, keeper: Keeper) {
        self.keeper = keeper;
        let mut ports = std::mem::take(&mut self.ports);
        for port in &mut ports {
            port.kept.clear();
            self.keep(port);
        }
        self.ports = ports;
        self.keep_lane();
    }

    /// Has what a port lives on kept. If that fails it is not: the port works all the same.
    pub(super) fn keep(&mut self, port: &mut OpenPort) {
        if let Err(error) = self.try_keep(port) {
            tracing::warn!(interface = port.interface, %error, "would not outlive this process");
        }
    }

    fn try_keep(&mut self, port: &mut OpenPort) -> io::Result<()> {
        if port.is_in_lane() {
            return self.keep_leg(port);
        }
        let names = Names { interface: &port.interface };
        let link = self.steer.keep(port.ifindex).map_err(io::Error::other)?;
        self.keeper.put(&names.link(&link), link.link.as_fd())?;
        port.kept.push(names.link(&link));
        let id = port.id;
        let mut workers = port.workers.clone();
        workers.sort_unstable();
        workers.dedup();
        for worker in workers {
            let queues = self.engine.ask(worker, move |worker| {
                let queues = worker.queues().filter(|&(port, ..)| port == id);
                queues.map(|(_, queue, receive)| Ok((queue, receive.keep()?))).collect::<io::Result<Vec<_>>>()
            });
            for (queue, kept) in queues.map_err(io::Error::other)?? {
                let (socket, frames) = (names.socket(queue.0, &kept), names.frames(queue.0, &kept));
                self.keeper.put(&socket, kept.socket.as_fd())?;
                self.keeper.put(&frames, kept.frames.as_fd())?;
                port.kept.extend([socket, frames]);
            }
        }
        Ok(())
    }

    /// Has what is kept under `names` kept no longer.
    pub(super) fn keep_no_longer(&mut self, names: &[String]) {
        for name in names {
            if let Err(error) = self.keeper.remove(name) {
                tracing::warn!(name, %error, "is kept longer than needed");
            }
        }
    }

    /// Makes sure that the next process is given everything, and stops: what came in has been
    /// sent when this returns, what comes from now on waits in the rings, and what was learned is
    /// kept. The process is to end, or to become another one, after this.
    ///
    /// # Errors
    /// [`PauseError`]; nothing was stopped if there is nobody to keep what is ours.
    pub fn pause(&mut self) -> Result<(), PauseError> {
        if !matches!(self.keeper, Keeper::Holder(_)) {
            self.keep_with(Keeper::for_restart(&self.places.control.state).map_err(PauseError::Keeper)?);
        }
        self.come_to_rest()
    }

    /// The second half of [`pause`](Self::pause).
    ///
    /// # Errors
    /// [`PauseError::Gone`]
    pub fn come_to_rest(&mut self) -> Result<(), PauseError> {
        for worker in self.engine.workers() {
            self.engine.ask(worker, |worker| worker.stop_inhaling())?;
        }
        for worker in self.engine.workers() {
            self.engine.ask(worker, |worker| worker.exhale())?;
        }
        if let Err(error) = self.keep_stations() {
            tracing::warn!(%error, "stations will have to be learned anew");
        }
        if let Err(error) = self.keep_sessions() {
            tracing::warn!(%error, "sessions of address translation will end");
        }
        Ok(())
    }

    /// Whether what is ours outlives a process that was asked to end.
    pub fn outlives_a_stop(&self) -> bool {
        matches!(self.keeper, Keeper::Manager)
    }

    /// Leaves every interface as it was found.
    pub fn end(&mut self) {
        let ports = std::mem::take(&mut self.ports);
        ports.iter().for_each(|port| self.close(port));
        self.remove_host_pairs(&ports, &self.plan.clone());
        self.close_lane();
        std::mem::replace(&mut self.keeper, Keeper::Nobody).dismiss();
    }

    /// Has a keeper that has ended replaced by another one.
    pub(super) fn check_keeper(&mut self) {
        if self.keeper.is_there() {
            return;
        }
        tracing::warn!("whoever was to keep interfaces attached has ended; another one is started");
        let patience = Duration::from_secs(self.places.control.hold.into());
        match Keeper::choose(&self.places.control.state, patience) {
            Ok((keeper, _)) => self.keep_with(keeper),
            Err(error) => tracing::warn!(%error, "nobody keeps interfaces attached"),
        }
    }

    fn keep_stations(&mut self) -> io::Result<()> {
        let stations = self.stations(None).map_err(io::Error::other)?;
        let mut file = File::from(memfd_create("vxlane-stations", MFdFlags::MFD_CLOEXEC)?);
        serde_json::to_writer(&mut file, &stations)?;
        file.flush()?;
        self.keeper.put(STATIONS, file.as_fd())
    }

    /// Has the workers know the stations that are in `file`. They are taken to have been heard
    /// of just now.
    fn recall(&mut self, mut file: File) -> io::Result<()> {
        file.rewind()?;
        let stations: Vec<Station> = serde_json::from_reader(file)?;
        let known: Vec<_> = stations.iter().filter_map(|station| self.recalled(station)).collect();
        let tables = Arc::new(commit::commit(&self.plan, &self.ids, &self.published));
        for worker in self.engine.workers() {
            let (known, tables, now) = (known.clone(), Arc::clone(&tables), self.engine.now());
            let recalled = self.engine.ask(worker, move |worker| {
                for (id, mac, origin) in known {
                    if let Some(network) = tables.network(id).filter(|network| network.has(origin)) {
                        worker.pipeline.bridge.learn(id, network, mac, origin, now);
                    }
                }
            });
            recalled.map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn recalled(&self, station: &Station) -> Option<(NetworkId, MacAddr, Origin)> {
        if station.state != StationState::Learned {
            return None;
        }
        let Mac(mac) = station.mac.parse().ok()?;
        let origin = match (&station.dst, &station.ifname) {
            (Some(vtep), _) => Origin::Vtep(self.ids.vtep(*vtep)?),
            (None, Some(dev)) => Origin::Port(self.ids.port(dev)?),
            (None, None) => return None,
        };
        Some((self.ids.network(&station.network)?, mac, origin))
    }
}
