//! The way out of the overlay: made when the first network wants one, kept true, told of.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    thread,
    time::Instant,
};

use vxlane_dataplane::{
    engine::WorkerGone,
    ids::{NetworkId, WorkerId},
    nat::{Nat, NatReport, Ports, Protocol, SessionView},
    router::Family,
    tables::Route,
    wire::{Address, MacAddr},
};

use super::{
    Daemon, NoSuchNetwork, StartError,
    next_hops::{RESOLVE, Uplink},
};
use crate::{
    api::types::nat::{FreePorts, NatSession, NatStatus, NatWorker},
    commit::Ways,
    config::NatChoice,
    desired::Plan,
    netlink::{self, NextHop, Routed},
    sockets::{self, InUse},
};

/// A way out that is open.
pub(super) struct WayOut {
    /// The ports that may be lent.
    ports: Ports,
    /// Ports that sockets of this host have; they are not lent.
    in_use: Vec<InUse>,
    pub(super) ways: Ways<Ipv4Addr>,
    /// The routers of those routes.
    pub(super) routers: Vec<NextHop>,
}

/// Routers that are kept known though no packet has asked for them.
const ROUTERS: usize = 64;
/// Sessions that are told of, at most.
const TOLD: usize = 10_000;

/// Why sessions cannot be told or ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NatError {
    /// Of which network?
    #[error(transparent)]
    NoSuchNetwork(#[from] NoSuchNetwork),
    /// A worker has ended.
    #[error(transparent)]
    Gone(#[from] WorkerGone),
}

/// Whether some network of `plan` has a way out.
fn is_wanted(plan: &Plan) -> bool {
    plan.networks.iter().any(|network| network.nat == NatChoice::Masquerade)
}

/// The host's routes, and its neighbours on the uplink; those among them that are routers.
pub(super) fn look<A: Routed>(uplink: Uplink) -> Result<(Ways<A>, Vec<NextHop>), StartError> {
    let mtu = u16::try_from(uplink.mtu).unwrap_or(u16::MAX);
    let routes = netlink::routes::<A>(uplink.index, mtu).map_err(StartError::Netlink)?;
    let neighbours = netlink::neighbours(uplink.index).map_err(StartError::Netlink)?;
    let routers: BTreeSet<A> = routes.iter().filter_map(|(_, route)| router(route)).take(ROUTERS).collect();
    // What a route names as its gateway is on the link.
    let routers = routers.into_iter().map(|router| netlink::on_link(uplink.index, router.into()));
    let routers = routers.collect::<Result<_, _>>().map_err(StartError::Netlink)?;
    Ok((Ways { routes, neighbours: neighbours.into_iter().collect() }, routers))
}

/// The router that a route leads to, if it leads to one on the uplink.
fn router<A: Copy>(route: &Route<A>) -> Option<A> {
    match route {
        Route::Uplink { gateway, .. } => *gateway,
        Route::Elsewhere | Route::Unreachable => None,
    }
}

impl Daemon {
    /// Has a way out be there if a network of the plan wants one, and not if none does.
    pub(super) fn open_or_close_way_out(&mut self) -> Result<(), StartError> {
        match (is_wanted(&self.plan), self.way_out.is_some()) {
            (true, false) => self.open_way_out(),
            (false, true) => self.close_way_out(),
            _ => Ok(()),
        }
    }

    fn open_way_out(&mut self) -> Result<(), StartError> {
        let in_use = sockets::in_use().map_err(StartError::Sockets)?;
        let ports = self.lendable_ports()?;
        let (ways, routers) = self.look_for_routers()?;
        let mut config = self.plan.nat.clone();
        config.ports = ports.clone();
        let workers: Vec<WorkerId> = self.engine.workers().collect();
        let count = u16::try_from(workers.len()).unwrap_or(u16::MAX);
        let board = self.boards().v4;
        for worker in workers {
            // Made here, not in the worker, which has packets to see to.
            let mut nat = Nat::new(config.clone(), worker, count, Arc::clone(&board));
            nat.avoid(avoided(&in_use));
            drop(self.engine.ask(worker, move |worker| worker.use_nat(Some(Box::new(nat))))?);
        }
        tracing::info!(%ports, in_use = in_use.len(), "there is a way out");
        self.way_out = Some(WayOut { ports, in_use, ways, routers });
        Ok(())
    }

    /// Has the ports that are lent be posted where the program on the uplink looks for them now.
    pub(super) fn move_leases(&mut self) -> Result<(), StartError> {
        let boards = self.boards();
        if self.posted_on.replace(boards.clone()).is_some_and(|before| before == boards) {
            return Ok(());
        }
        let (v4, v6) = (boards.v4, boards.v6);
        self.with_nat::<Ipv4Addr, _>(move |nat| nat.post_on(Arc::clone(&v4)))?;
        self.with_nat::<Ipv6Addr, _>(move |nat| nat.post_on(Arc::clone(&v6)))?;
        Ok(())
    }

    /// The ports that may be lent: not those of the host's own sockets nor that of the tunnels.
    pub(super) fn lendable_ports(&self) -> Result<Ports, StartError> {
        let ephemeral = sockets::ephemeral().map_err(StartError::Sockets)?;
        let vxlan = self.plan.local.port;
        let ports = self.plan.nat.ports.without(|port| ephemeral.contains(&port) || port == vxlan);
        if ports.is_empty() {
            let asked = self.plan.nat.ports.to_string();
            return Err(StartError::NoPorts { asked, ephemeral: format!("{}-{}", ephemeral.start(), ephemeral.end()) });
        }
        Ok(ports)
    }

    /// Has the kernel ask for the routers and waits a moment for the answers, so that the first
    /// packets find the way open.
    pub(super) fn look_for_routers<A: Routed>(&self) -> Result<(Ways<A>, Vec<NextHop>), StartError> {
        let deadline = Instant::now() + RESOLVE;
        let (mut ways, mut routers) = look(self.uplink)?;
        self.solicit_all(&routers);
        while routers.iter().any(NextHop::is_awaited) && Instant::now() < deadline {
            thread::sleep(RESOLVE / 100);
            (ways, routers) = look(self.uplink)?;
        }
        Ok((ways, routers))
    }

    fn close_way_out(&mut self) -> Result<(), StartError> {
        for worker in self.engine.workers() {
            // Dropped here, for the same reason.
            drop(self.engine.ask(worker, |worker| worker.use_nat::<Ipv4Addr>(None))?);
        }
        self.way_out = None;
        Ok(())
    }

    /// Looks anew at routes, neighbours and ports in use.
    pub(super) fn refresh_way_out(&mut self) -> Result<(), StartError> {
        let Some(way_out) = &mut self.way_out else { return Ok(()) };
        (way_out.ways, way_out.routers) = look(self.uplink)?;
        let in_use = sockets::in_use().map_err(StartError::Sockets)?;
        let changed = avoided(&in_use).ne(avoided(&way_out.in_use));
        way_out.in_use = in_use;
        if changed {
            let in_use = self.way_out.as_ref().map(|way_out| way_out.in_use.clone()).unwrap_or_default();
            self.with_nat::<Ipv4Addr, _>(move |nat| nat.avoid(avoided(&in_use)))?;
        }
        Ok(())
    }

    /// The way out and its sessions, of one network or of all.
    ///
    /// # Errors
    /// [`NatError`]
    pub fn nat(&self, only: Option<&str>) -> Result<NatStatus, NatError> {
        let only = self.only(only)?;
        let workers = self.with_nat::<Ipv4Addr, _>(|nat| nat.report())?;
        let workers6 = self.with_nat::<Ipv6Addr, _>(|nat| nat.report())?;
        let mut sessions = Vec::new();
        for &(worker, _) in &workers {
            self.read_sessions::<Ipv4Addr>(worker, only, &mut sessions)?;
        }
        for &(worker, _) in &workers6 {
            self.read_sessions::<Ipv6Addr>(worker, only, &mut sessions)?;
        }
        Ok(NatStatus {
            address: self.plan.outside,
            address6: self.way_out6.as_ref().and_then(|way_out| way_out.address),
            ports: match (&self.way_out, workers6.is_empty()) {
                (Some(way_out), _) => way_out.ports.to_string(),
                (None, false) => self.lendable_ports().map(|ports| ports.to_string()).unwrap_or_default(),
                (None, true) => String::new(),
            },
            workers: workers.iter().map(|(worker, report)| told(*worker, report)).collect(),
            workers6: workers6.iter().map(|(worker, report)| told(*worker, report)).collect(),
            sessions,
        })
    }

    /// Ends sessions: of a network or of all, of an endpoint's address or of all. Returns how many.
    ///
    /// # Errors
    /// [`NatError`]
    pub fn flush_nat(&self, only: Option<&str>, address: Option<IpAddr>) -> Result<usize, NatError> {
        let only = self.only(only)?;
        Ok(self.end_sessions(only, address)?)
    }

    /// Ends the sessions of a network or of all, of an endpoint's address or of all.
    pub(super) fn end_sessions(&self, only: Option<NetworkId>, address: Option<IpAddr>) -> Result<usize, WorkerGone> {
        let ended = self.with_nat::<Ipv4Addr, _>(move |nat| nat.retain(|session| stays(session, only, address)))?;
        let ended6 = self.with_nat::<Ipv6Addr, _>(move |nat| nat.retain(|session| stays(session, only, address)))?;
        self.settle();
        Ok(ended.into_iter().chain(ended6).map(|(_, ended)| ended).sum())
    }

    fn read_sessions<A: Family>(
        &self,
        worker: WorkerId,
        only: Option<NetworkId>,
        told: &mut Vec<NatSession>,
    ) -> Result<(), WorkerGone> {
        self.each_session::<A>(worker, |page| {
            let wanted = page.iter().filter(|session| only.is_none_or(|only| session.network == only));
            told.extend(wanted.take(TOLD - told.len()).map(|session| self.session(worker, session)));
            told.len() < TOLD
        })
    }

    fn session<A: Address>(&self, worker: WorkerId, session: &SessionView<A>) -> NatSession {
        let now = self.engine.now().ticks();
        let address: IpAddr = session.inside.0.into();
        let network =
            self.plan.networks.iter().find(|planned| self.ids.network(&planned.name) == Some(session.network));
        let network = network.map(|network| network.name.clone()).unwrap_or_default();
        let is_its = |mac: MacAddr| mac == session.mac;
        let owner = self.plan.endpoints.iter().find(|endpoint| {
            let mut addresses = endpoint.addresses().filter(|of| of.is_ipv4() == address.is_ipv4()).peekable();
            let named = match addresses.peek() {
                Some(_) => addresses.any(|of| of == address),
                None => endpoint.mac.is_some_and(|mac| is_its(mac.0)),
            };
            endpoint.network == network && named
        });
        NatSession {
            protocol: session.protocol.name().to_owned(),
            state: session.state.name().to_owned(),
            endpoint: owner.map(|endpoint| endpoint.name.clone()),
            network,
            inside: told_end(session.inside),
            outside: told_end(session.outside),
            remote: told_end(session.remote),
            worker: worker.0,
            age: now.since(session.created).to_duration().as_secs(),
            expires: session.deadline.since(now).to_duration().as_secs(),
            out_packets: session.out.packets(),
            out_bytes: session.out.bytes(),
            back_packets: session.back.packets(),
            back_bytes: session.back.bytes(),
        }
    }
}

/// Whether a session is none of those of this network, or of this address.
fn stays<A: Address>(session: &SessionView<A>, only: Option<NetworkId>, address: Option<IpAddr>) -> bool {
    let inside: IpAddr = session.inside.0.into();
    only.is_some_and(|only| session.network != only) || address.is_some_and(|of| inside != of)
}

fn told_end<A: Address>((address, port): (A, u16)) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

/// The ports that translation must not lend.
pub(super) fn avoided(in_use: &[InUse]) -> impl Iterator<Item = (Protocol, u16)> + '_ {
    let mut last = None;
    in_use.iter().filter_map(move |used| {
        let port = (Protocol::ALL[usize::from(used.protocol).min(2)], used.port);
        (last.replace(port) != Some(port)).then_some(port)
    })
}

fn told(worker: WorkerId, report: &NatReport) -> NatWorker {
    let [tcp, udp, icmp] = report.free_ports;
    NatWorker {
        id: worker.0,
        sessions: report.sessions,
        mappings: report.mappings,
        begun: report.begun,
        free: FreePorts { tcp, udp, icmp },
        fragments: report.fragments,
        memory: report.memory,
    }
}
