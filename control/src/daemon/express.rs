//! The express lane: programs that repeat what workers decided, and the pair of interfaces to them.

use std::{
    collections::HashMap,
    io,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use vxlane_dataplane::{
    attach::{
        Role,
        express::{Express, ExpressError, KeptLeg},
        ours::Boards,
    },
    engine::WorkerGone,
    express::{self, Leg},
    ids::{NetworkId, PortId},
    link::Link,
    tables::Tables,
};

use super::{
    Daemon, Look, StartError,
    ports::{Mode, OpenPort},
    resume::Queues,
};
use crate::{
    causes::chain,
    commit::{Exhausted, RING},
    config::{ExpressChoice, XdpChoice},
    desired::Plan,
    host,
    keep::{Held, HeldPort, Names},
    netlink::{self, PairError},
};

/// A running express lane.
pub(super) struct Lane {
    pub(super) express: Express,
    /// The end of the pair that the workers have the rings of.
    pub(super) ring: OpenPort,
    /// The other end.
    punt: Link,
    /// The names under which what the legs live on is kept, by port.
    kept: HashMap<PortId, String>,
    /// The same of the punt.
    kept_exit: Option<String>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Err(error) = netlink::remove_pair(&self.punt.name) {
            tracing::warn!(interface = self.punt.name, %error, "removing");
        }
    }
}

/// Why there is no express lane.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The programs or their maps.
    #[error(transparent)]
    Express(#[from] ExpressError),
    /// The pair that leads to the workers.
    #[error("the pair of interfaces between express lane and workers")]
    Pair(#[from] PairError),
}

/// Why there is no lane after something went wrong; it is tried again.
const UNMADE: &str = "it could not be made so far";
/// How soon.
const RETRY: Duration = Duration::from_secs(2);
/// Why there is none where trying again would not help.
const UNKNOWN: &str = "the kernel does not take its programs";

/// Flows that all workers together may have in the maps.
const FLOWS: usize = 32_768;

/// Of those, as many as one of `workers` may have.
pub(super) fn share(workers: usize) -> usize {
    FLOWS / workers.max(1)
}

impl Daemon {
    fn open_lane(&mut self) -> Result<(), StartError> {
        let uplink = Link::get(&self.plan.uplink)?;
        let [punt, ring] = netlink::punt_names(uplink.index);
        if netlink::is_punt(&punt) {
            // Of an earlier life.
            netlink::remove_pair(&punt).map_err(StartError::Netlink)?;
        }
        if let Some(reason) = reason_against(&self.plan, &uplink) {
            tracing::info!(reason, "no express lane");
            self.no_lane = reason;
            return Ok(());
        }
        let lane = |error| StartError::Lane(Box::new(error));
        let queues = self.lane_queues();
        netlink::make_punt(&punt, &ring, uplink.mtu, queues).map_err(|error| lane(error.into()))?;
        let made = self.fill_lane(&punt, &ring);
        if made.is_err() {
            // The first error is the one to report.
            let _ = netlink::remove_pair(&punt);
        }
        made
    }

    /// The pair has a queue for each worker.
    fn lane_queues(&self) -> u32 {
        u32::try_from(self.plan.workers.max(1)).unwrap_or(1)
    }

    fn fill_lane(&mut self, punt: &str, ring: &str) -> Result<(), StartError> {
        let express = self.load_lane(punt, None)?;
        let id = self.ids.port(RING).ok_or(Exhausted)?;
        let ring = self.open_ring(ring, id)?;
        self.have_lane(express, ring, Link::get(punt)?)
    }

    fn load_lane(&self, punt: &str, kept: Option<KeptLeg>) -> Result<Express, StartError> {
        let mut express = Express::load().map_err(lane_failed)?;
        let ours = |error| lane_failed(ExpressError::Map(error));
        express.ours().set_vtep(&self.plan.local, self.plan.outside).map_err(ours)?;
        if let Some(way_out) = &self.way_out6 {
            express.ours().set_outside_v6(way_out.address, &way_out.routed).map_err(ours)?;
        }
        express.set_up(punt, kept).map_err(lane_failed)?;
        Ok(express)
    }

    fn have_lane(&mut self, express: Express, ring: OpenPort, punt: Link) -> Result<(), StartError> {
        let most = share(self.plan.workers);
        for worker in self.engine.workers() {
            // Made here, not in the worker, which has packets to see to.
            let (flows, epochs) = (express.flows().map_err(lane_failed)?, express.epochs());
            let uses = express.uses().share(worker.0.into(), self.lane_queues());
            let share = express::Express::new(worker, flows, epochs, uses, most);
            self.engine.ask(worker, move |worker| worker.use_express(share))?;
        }
        self.lane = Some(Lane { express, ring, punt, kept: HashMap::new(), kept_exit: None });
        self.keep_exit();
        Ok(())
    }

    /// Goes on with the lane that an earlier process has left, up to where frames wait for a
    /// worker. What of it cannot be gone on with is taken away, and made anew by others.
    ///
    /// # Errors
    /// [`StartError::Link`] if there is no uplink
    pub(super) fn resume_lane(&mut self, held: &mut Held, queues: &mut Queues) -> Result<(), StartError> {
        let uplink = Link::get(&self.plan.uplink)?;
        // They may be named after an uplink that has been made anew since.
        let Some(punt) = held.exit().map(str::to_owned) else { return Ok(()) };
        let ring = punt.replacen('p', "r", 1);
        let (kept, held_ring) = (held.take(&punt), held.take(&ring));
        let (Some(kept), Some(held_ring)) = (kept, held_ring) else { return Ok(()) };
        let names = [kept.names.clone(), held_ring.names.clone()].concat();
        if let Some(reason) = reason_against(&self.plan, &uplink) {
            tracing::info!(reason, "no express lane any more");
            held_ring.detach(&ring);
            kept.detach(&punt);
        } else if let Err(reason) = self.try_resume_lane(&punt, kept, &ring, held_ring, queues) {
            tracing::warn!(reason, "the express lane is not taken over, but made anew");
            queues.clear();
        } else {
            return Ok(());
        }
        self.keep_no_longer(&names);
        Ok(())
    }

    fn try_resume_lane(
        &mut self,
        punt: &str,
        kept: HeldPort,
        ring: &str,
        held_ring: HeldPort,
        queues: &mut Queues,
    ) -> Result<(), String> {
        let told = |error: &dyn std::error::Error| chain(error).to_string();
        if u32::try_from(held_ring.queues.len()) != Ok(self.lane_queues()) {
            held_ring.detach(ring);
            kept.detach(punt);
            return Err("there are other workers than there were".to_owned());
        }
        let link = Link::get(punt).map_err(|error| told(&error))?;
        let express = self.load_lane(punt, kept.leg).map_err(|error| told(&error))?;
        let ring = self.resume_port(ring, Role::Lane, held_ring, queues)?;
        self.have_lane(express, ring, link).map_err(|error| told(&error))?;
        self.follow_lane_mtu(self.uplink.mtu);
        Ok(())
    }

    /// Goes on with one leg of the lane.
    pub(super) fn resume_leg(&mut self, interface: &str, role: Role, held: HeldPort) -> Result<OpenPort, String> {
        let told = |error: &dyn std::error::Error| chain(error).to_string();
        let (Some(kept), Some(id), Ok(link)) = (held.leg, self.ids.port(interface), Link::get(interface)) else {
            return Err("the interface is gone".to_owned());
        };
        let Some(lane) = &mut self.lane else {
            kept.detach(interface);
            return Err("there is no express lane any more".to_owned());
        };
        let leg = lane.express.resume(interface, role, id, kept).map_err(|error| told(&error))?;
        lane.kept.extend(held.names.first().map(|name| (id, name.clone())));
        self.admit(id).map_err(|error| told(&error))?;
        tracing::info!(interface, "taken over");
        self.open_leg(interface, role, id, &link, leg).ok_or_else(|| "there is no express lane any more".to_owned())
    }

    /// Has our own programs decide from now on, in the place of those of an earlier process.
    pub(super) fn take_over_lane(&mut self) -> Result<(), StartError> {
        let Some(lane) = &mut self.lane else { return Ok(()) };
        lane.express.take_over().map_err(lane_failed)?;
        // A filter is told from others by its program, which is another one now.
        self.keep_exit();
        for port in self.ports.clone().iter().filter(|port| port.is_in_lane()) {
            if let Err(error) = self.keep_leg(port) {
                tracing::warn!(interface = port.interface, %error, "would not outlive this process");
            }
        }
        Ok(())
    }

    /// Has everything that the lane itself lives on be kept.
    pub(super) fn keep_lane(&mut self) {
        let Some(mut lane) = self.lane.take() else { return };
        lane.ring.kept.clear();
        self.keep(&mut lane.ring);
        self.lane = Some(lane);
        self.keep_exit();
    }

    fn keep_exit(&mut self) {
        if let Err(error) = self.try_keep_exit() {
            tracing::warn!(%error, "the express lane would not outlive this process");
        }
    }

    fn try_keep_exit(&mut self) -> io::Result<()> {
        let Some(lane) = &mut self.lane else { return Ok(()) };
        if let Some(kept) = lane.express.keep_exit().map_err(io::Error::other)? {
            let name = Names { interface: &lane.punt.name }.leg(&kept);
            self.keeper.put(&name, kept.fd().as_fd())?;
            lane.kept_exit = Some(name);
        }
        Ok(())
    }

    /// Has the program of one leg, which is on its interface, be kept.
    pub(super) fn keep_leg(&mut self, port: &OpenPort) -> io::Result<()> {
        let Some(lane) = self.lane.as_mut().filter(|lane| lane.express.has(port.id)) else { return Ok(()) };
        let kept = lane.express.keep(port.id).map_err(io::Error::other)?;
        let name = Names { interface: &port.interface }.leg(&kept);
        self.keeper.put(&name, kept.fd().as_fd())?;
        lane.kept.insert(port.id, name);
        Ok(())
    }

    /// Why the lane cannot go on, if it cannot. Where the kernel does not say, it can.
    pub(super) fn lane_fault(&self, look: Look) -> Option<&'static str> {
        let lane = self.lane.as_ref()?;
        if !lane.express.leads_on(lane.punt.index) || matches!(self.steer.is_on(lane.ring.ifindex), Ok(false)) {
            return Some("the pair to the workers is gone, or somebody took our programs off it");
        }
        if look == Look::Brief {
            return None;
        }
        let is_down = |interface: &str| matches!(host::find(interface), Ok(Some(link)) if !link.is_up);
        if is_down(&lane.punt.name) || is_down(&lane.ring.interface) {
            return Some("the pair to the workers is down");
        }
        let grown = Link::get(&self.plan.uplink).is_ok_and(|uplink| uplink.mtu > lane.ring.mtu);
        grown.then_some("the uplink's MTU has grown beyond the frames")
    }

    /// Has the pair to the workers carry packets as long as the uplink does.
    pub(super) fn follow_lane_mtu(&self, mtu: u32) {
        let Some(lane) = &self.lane else { return };
        for interface in [&lane.punt.name, &lane.ring.interface] {
            if let Err(error) = netlink::set_mtu(interface, mtu) {
                tracing::warn!(interface, error = chain(&error), "its MTU stays as it was");
            }
        }
    }

    /// Makes the lane anew, and says whether there is one. No port is in it; those that can be are
    /// opened again by others.
    pub(super) fn remake_lane(&mut self) -> bool {
        self.close_lane();
        self.make_lane()
    }

    /// Has an express lane be there if it is wanted and can be had, and says whether there is one.
    pub(super) fn make_lane(&mut self) -> bool {
        self.no_lane = UNMADE;
        self.lane_tried = Instant::now();
        let error = self.open_lane().err();
        if error.as_ref().is_some_and(is_the_kernels) {
            self.no_lane = UNKNOWN;
        }
        let told = error.map(|error| chain(&error).to_string());
        self.complain(RING, told, "there is no express lane for now");
        self.lane.is_some()
    }

    /// Whether there is a lane again that could not be made before. To try takes a tenth of a second.
    pub(super) fn retry_lane(&mut self) -> bool {
        self.lane.is_none() && self.no_lane == UNMADE && self.lane_tried.elapsed() > RETRY && self.remake_lane()
    }

    /// Whether a port that is not in the lane could be.
    pub(super) fn could_be_in_lane(&self, port: &OpenPort) -> bool {
        let endpoint = self.plan.endpoints.iter().find(|endpoint| endpoint.interface == port.interface);
        let xdp = endpoint.map_or(self.plan.uplink_xdp, |endpoint| endpoint.xdp);
        let link = Link::get(&port.interface);
        let is_hosts = self.plan.is_host_port(&port.interface);
        !port.is_in_lane() && !is_hosts && link.is_ok_and(|link| self.leg(&link, port.role, port.id, xdp).is_some())
    }

    /// Takes the lane away, with its pair of interfaces. No port is in it any more.
    pub(super) fn close_lane(&mut self) {
        let Some(lane) = self.lane.take() else { return };
        if let Ok(counted) = lane.express.counters() {
            self.past += counted;
        }
        self.keep_no_longer(lane.kept_exit.as_slice());
        self.close(&lane.ring);
    }

    /// Where `port` of this role is to the programs, if its frames shall take the express lane.
    pub(super) fn leg(&self, link: &Link, role: Role, id: PortId, xdp: XdpChoice) -> Option<Leg> {
        let fits = self.lane.is_some() && Express::suits(link) && xdp == XdpChoice::Auto && Express::can_tag(id);
        fits.then(|| Express::leg(link, role))
    }

    /// Why the interface of a port cannot be in the lane that there is.
    pub(super) fn unfit(&self, interface: &str) -> &'static str {
        let chosen = |xdp| xdp != XdpChoice::Auto;
        let endpoint = self.plan.endpoints.iter().find(|endpoint| endpoint.interface == interface);
        if endpoint.is_some_and(|endpoint| chosen(endpoint.xdp)) {
            "its XDP mode was chosen"
        } else if self.plan.is_host_port(interface) {
            "it leads to the host itself"
        } else if Link::get(interface).is_ok_and(|link| Express::suits(&link)) {
            "there are too many ports"
        } else {
            "it is no veth"
        }
    }

    /// A port whose frames come and go through the rings of the lane.
    pub(super) fn open_leg(&self, interface: &str, role: Role, id: PortId, link: &Link, leg: Leg) -> Option<OpenPort> {
        let ring = &self.lane.as_ref()?.ring;
        Some(OpenPort {
            id,
            interface: interface.to_owned(),
            role,
            ifindex: link.index,
            mode: Mode::Express(leg),
            is_up: link.is_up,
            kept: Vec::new(),
            ..ring.clone()
        })
    }

    /// Says that `ports` will be served next, one after the other.
    pub(super) fn expect(&mut self, ports: &[OpenPort]) {
        if let Some(lane) = &mut self.lane {
            lane.express.expect(ports.iter().filter(|port| port.is_in_lane()).count());
        }
    }

    /// Has the programs see the frames of `port`.
    pub(super) fn attach_leg(&mut self, port: &OpenPort) -> Result<(), StartError> {
        let Some(lane) = &mut self.lane else { return Ok(()) };
        lane.express.attach(&port.interface, port.role, port.id).map_err(lane_failed)?;
        if let Err(error) = self.keep_leg(port) {
            tracing::warn!(interface = port.interface, %error, "would not outlive this process");
        }
        Ok(())
    }

    /// Has the programs see the frames of `port` no more.
    pub(super) fn detach_leg(&mut self, port: &OpenPort) {
        let Some(lane) = self.lane.as_mut().filter(|lane| lane.express.has(port.id)) else { return };
        let kept = lane.kept.remove(&port.id);
        if let Err(error) = lane.express.detach(port.id) {
            tracing::warn!(interface = port.interface, %error, "detaching");
        }
        self.keep_no_longer(kept.as_slice());
    }

    /// Where ports that are lent are posted: where the program on the uplink looks for them.
    pub(super) fn boards(&mut self) -> Boards {
        let uplink = self.ports.iter().find(|port| port.role == Role::Uplink);
        let is_in_lane = uplink.is_some_and(OpenPort::is_in_lane);
        match &mut self.lane {
            Some(lane) if is_in_lane => lane.express.ours().boards().clone(),
            _ => self.steer.ours().boards().clone(),
        }
    }

    /// Has nothing be repeated any more that `before` allowed and `now` may not. Every worker has
    /// the tables of `now`.
    pub(super) fn end_epochs(&self, before: &Tables, now: &Tables) {
        let Some(lane) = &self.lane else { return };
        let ended: Vec<NetworkId> = before.changed(now).collect();
        let epochs = lane.express.epochs();
        ended.iter().for_each(|&network| epochs.end(network));
        let outside = before.outside() != now.outside();
        if outside {
            epochs.end_outside();
        }
        // Of what is not published any more workers have ended the sessions.
        if outside || !ended.is_empty() || before.publishes() != now.publishes() {
            self.settle();
        }
    }

    /// Returns when no program goes on with what was taken out of the maps before.
    pub(super) fn settle(&self) {
        if let Some(lane) = &self.lane {
            lane.express.settle();
        }
    }

    /// Gives every worker room for the counters of a port that has no queue.
    pub(super) fn admit(&self, port: PortId) -> Result<(), WorkerGone> {
        self.engine.workers().try_for_each(|worker| self.engine.ask(worker, move |worker| worker.admit(port)))
    }
}

pub(super) fn lane_failed(error: ExpressError) -> StartError {
    StartError::Lane(Box::new(error.into()))
}

/// Whether the kernel, which is an old one, or has something left out, would not have the programs.
fn is_the_kernels(error: &StartError) -> bool {
    let StartError::Lane(error) = error else { return false };
    matches!(**error, LaneError::Express(ExpressError::Load(_) | ExpressError::Program { .. }))
}

/// Why there shall be no express lane, if there shall be none.
fn reason_against(plan: &Plan, uplink: &Link) -> Option<&'static str> {
    if plan.express == ExpressChoice::Off {
        Some("it is off")
    } else if !Express::suits(uplink) {
        Some("the uplink is no veth: its rings are faster")
    } else if plan.uplink_xdp != XdpChoice::Auto {
        Some("the uplink's XDP mode was chosen")
    } else {
        None
    }
}
