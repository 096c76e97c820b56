//! Puts the programs of the express lane on interfaces, fills their maps, and takes them away again.
//!
//! Whatever is done to an interface here is undone when it is detached or when [`Express`] is
//! dropped. Programs that others have put there stay, and come first.

mod kept;

use std::{
    collections::HashMap,
    io,
    ops::AddAssign,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use aya::{
    Ebpf, EbpfError, Pod,
    maps::{Array, HashMap as BpfMap, Map, MapData, PerCpuArray},
    programs::{ProgramError, SchedClassifier, TcAttachType, tc::qdisc_detach_program},
};
use vxlane_abi::express::{self as abi, Event, maps};

use super::{
    Role,
    maps::{MapFault, refused, take},
    ours::Ours,
    tc::{self, Means, Placed},
};
pub use super::{epochs::Epochs, uses::Uses};
use crate::{
    express::{Flows, FlowsError, Leg},
    ids::PortId,
    link::{Link, LinkError, ethtool::Ethtool},
    memlock,
};
pub use kept::KeptLeg;
pub use vxlane_abi::express::{Encap, FlowKey, KIND_TUNNEL, KIND_TUNNEL_V6, Rewrite, SessionKey, TunnelKey, Way};

/// Why an interface could not have the express lane.
#[derive(Debug, thiserror::Error)]
pub enum ExpressError {
    /// The object did not load.
    #[error("loading the express lane's object (is this root, with BPF in the kernel?)")]
    Load(#[from] EbpfError),
    /// The kernel refused a program.
    #[error("BPF_PROG_LOAD {name}")]
    Program {
        /// The program.
        name: &'static str,
        /// What it answered, with the verifier's log.
        source: ProgramError,
    },
    /// The object is not the one this was written for.
    #[error("the express lane's object has no {name}")]
    Missing {
        /// The program it lacks.
        name: &'static str,
    },
    /// A map cannot be had, or would not be read or written.
    #[error(transparent)]
    Map(#[from] MapFault),
    /// The interface could not be looked at.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The kernel refused a step.
    #[error("{step}")]
    Step {
        /// What was to be done.
        step: String,
        /// What it answered.
        source: io::Error,
    },
    /// The interface cannot have this lane, or the port's number is too high.
    #[error("{interface} cannot have the express lane: {why}")]
    Unfit {
        /// The interface.
        interface: String,
        /// What it is not.
        why: &'static str,
    },
    /// No interface of that port is attached.
    #[error("port {0} is not attached")]
    NotAttached(PortId),
}

/// What became of the frames that the programs saw, over all interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpressCounters {
    /// Took this lane.
    pub hits: u64,
    /// To a worker: no flow, or nothing for this lane.
    pub misses: u64,
    /// To a worker, to confirm a flow.
    pub confirms: u64,
    /// To a worker: the flow was no longer good.
    pub stale: u64,
    /// On the uplink, neither VXLAN to our VTEP nor to a lent port: left to the host.
    pub passed: u64,
    /// From workers.
    pub sent: u64,
    /// From workers, for a port that is gone: dropped.
    pub no_exit: u64,
    /// No memory for a tag: dropped.
    pub no_tag: u64,
    /// Were to take this lane, and had no room for their headers: dropped.
    pub no_headers: u64,
    /// What took this lane, counted as the frames that it is segmented into.
    pub carried: u64,
}

impl AddAssign for ExpressCounters {
    fn add_assign(&mut self, other: Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.confirms += other.confirms;
        self.stale += other.stale;
        self.passed += other.passed;
        self.sent += other.sent;
        self.no_exit += other.no_exit;
        self.no_tag += other.no_tag;
        self.no_headers += other.no_headers;
        self.carried += other.carried;
    }
}

/// What is in the maps that workers fill, good or not.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Frames of endpoints.
    pub flows: Vec<(FlowKey, Encap)>,
    /// Frames from other VTEPs.
    pub tunnels: Vec<(TunnelKey, Way)>,
    /// Packets of sessions of address translation.
    pub sessions: Vec<(SessionKey, Rewrite)>,
}

/// One instance of the programs, on any number of interfaces of one network namespace.
pub struct Express {
    // First, so that they are dropped first: detaching needs the programs.
    attached: HashMap<PortId, (u32, Placed)>,
    exit: Option<Placed>,
    means: Means,
    /// Whether many interfaces are attached at once now.
    many: bool,
    /// Ports whose program is still that of an earlier process, with the program that they are to have.
    resumed: Vec<(PortId, &'static str)>,
    tags: BpfMap<MapData, u32, u32>,
    exits: Array<MapData, abi::Exit>,
    setup: Array<MapData, abi::Setup>,
    port_counts: PerCpuArray<MapData, abi::PortCounts>,
    events: PerCpuArray<MapData, u64>,
    flows: BpfMap<MapData, abi::FlowKey, abi::Encap>,
    tunnels: BpfMap<MapData, abi::TunnelKey, abi::Way>,
    sessions: BpfMap<MapData, abi::SessionKey, abi::Rewrite>,
    flow_map: OwnedFd,
    tunnel_map: OwnedFd,
    session_map: OwnedFd,
    uses: Uses,
    epochs: Arc<Epochs>,
    ours: Ours,
    object: Ebpf,
}

impl Express {
    /// Loads the programs and their maps into the kernel. Nothing is attached yet.
    ///
    /// # Errors
    /// [`ExpressError`]
    pub fn load() -> Result<Self, ExpressError> {
        memlock::lift();
        let mut object = Ebpf::load(EXPRESS_OBJECT)?;
        for name in [abi::ACCESS_PROGRAM, abi::UPLINK_PROGRAM, abi::EXIT_PROGRAM] {
            let program = program(&mut object, name)?;
            program.load().map_err(|source| ExpressError::Program { name, source })?;
        }
        let (epochs, beat) = (descriptor(&object, maps::EPOCHS)?, descriptor(&object, maps::BEAT)?);
        let epochs = Epochs::of_maps(epochs.as_fd(), beat.as_fd()).map_err(step("mapping the epochs"))?;
        let uses = descriptor(&object, maps::USES)?;
        let uses = Uses::of_map(uses.as_fd()).map_err(step("mapping what is noted of sessions"))?;
        Ok(Self {
            session_map: descriptor(&object, maps::SESSIONS)?,
            uses,
            flow_map: descriptor(&object, maps::FLOWS)?,
            tunnel_map: descriptor(&object, maps::TUNNELS)?,
            attached: HashMap::new(),
            exit: None,
            means: if std::env::var_os(MEANS).is_some_and(|means| means == "clsact") {
                Means::Clsact
            } else {
                Means::Tcx
            },
            many: false,
            resumed: Vec::new(),
            tags: take(&mut object, maps::TAGS)?,
            exits: take(&mut object, maps::EXITS)?,
            setup: take(&mut object, maps::SETUP)?,
            port_counts: take(&mut object, maps::PORT_COUNTS)?,
            events: take(&mut object, maps::EVENTS)?,
            flows: take(&mut object, maps::FLOWS)?,
            tunnels: take(&mut object, maps::TUNNELS)?,
            sessions: take(&mut object, maps::SESSIONS)?,
            epochs: Arc::new(epochs),
            ours: Ours::of(&mut object)?,
            object,
        })
    }

    /// Says that `punt` leads to the workers. That interface is one end of a pair, whose other end the
    /// workers have the rings of; an earlier process may have left it with its program, which is `kept`.
    ///
    /// # Errors
    /// [`ExpressError`]
    pub fn set_up(&mut self, punt: &str, kept: Option<KeptLeg>) -> Result<(), ExpressError> {
        let link = Link::get(punt)?;
        let finished = Ethtool::open(link.index).and_then(|device| device.finish_frames());
        finished.map_err(step(&format!("ethtool -K {punt} tx off txvlan off")))?;
        let there = match kept {
            Some(kept) => Placed::kept(kept.program, &link).map_err(step("the program that was kept"))?,
            None => None,
        };
        self.exit = Some(match there {
            Some(placed) => placed,
            None => self.install(&link, abi::EXIT_PROGRAM)?,
        });
        let setup = abi::Setup { punt: link.index, queues: link.tx_queues };
        Ok(self.setup.set(0, setup, 0).map_err(refused(maps::SETUP))?)
    }

    /// Whether `link` can have this lane: what an endpoint sends through a veth has all of the
    /// kernel's own way before it, and what is sent into one all of it behind.
    pub fn suits(link: &Link) -> bool {
        link.kind.as_deref() == Some("veth")
    }

    /// Whether frames of `port` can be told by a tag.
    pub fn can_tag(port: PortId) -> bool {
        u32::from(port.0) < abi::MAX_TAGS
    }

    /// How the programs are attached where not many are at once: `tcx` or `clsact`.
    pub fn place(&self) -> &'static str {
        self.means.name()
    }

    /// How that of `port` is, if it is.
    pub fn place_of(&self, port: PortId) -> Option<&'static str> {
        self.attached.get(&port).map(|(_, placed)| placed.means().name())
    }

    /// Says how many interfaces will be [attached](Self::attach) now, one after the other.
    ///
    /// For each link that is put on an interface, or leaves it, the kernel waits for a grace period of
    /// RCU (`tcx_entry_sync`, `include/net/tcx.h`), and has everybody wait meanwhile who wants to
    /// change any interface: with a thousand that takes ten to twenty seconds. With filters it does
    /// not, so many interfaces get these.
    pub fn expect(&mut self, interfaces: usize) {
        self.many = interfaces > MANY;
    }

    /// Where `link` is to the programs.
    pub fn leg(link: &Link, role: Role) -> Leg {
        Leg { ifindex: link.index, into: role == Role::Access && link.peer_elsewhere }
    }

    /// Puts a program on `interface`, which is `port`. Its frames go to the workers from now on,
    /// but for those of flows that these put into the maps.
    ///
    /// # Errors
    /// [`ExpressError`]; the interface is then as it was.
    pub fn attach(&mut self, interface: &str, role: Role, port: PortId) -> Result<Leg, ExpressError> {
        let link = Link::get(interface)?;
        let leg = self.register(&link, role, port)?;
        match self.install(&link, program_of(role)) {
            Ok(program) => {
                self.attached.insert(port, (link.index, program));
                Ok(leg)
            }
            Err(error) => {
                // The first error is the one to report.
                let _ = self.forget(port, link.index);
                Err(error)
            }
        }
    }

    /// Whether the program of `port` is where it was put; where the kernel does not say, it is.
    /// Filters, which take longer to ask for, are looked for only when looking `closely`: of those the
    /// kernel tells when they go.
    pub fn is_on(&self, port: PortId, closely: bool) -> bool {
        self.attached.get(&port).is_some_and(|(index, placed)| {
            (!closely && placed.means() == Means::Clsact) || placed.is_on(*index).unwrap_or(true)
        })
    }

    /// The same of the program on the interface `punt`, which leads to the workers.
    pub fn leads_on(&self, punt: u32) -> bool {
        self.exit.as_ref().is_some_and(|placed| placed.is_on(punt).unwrap_or(true))
    }

    /// Has the programs know the port on `link`.
    fn register(&mut self, link: &Link, role: Role, port: PortId) -> Result<Leg, ExpressError> {
        let unfit = |why| ExpressError::Unfit { interface: link.name.clone(), why };
        if !Self::suits(link) {
            return Err(unfit("it is no veth"));
        }
        if !Self::can_tag(port) {
            return Err(unfit("too many ports"));
        }
        let tag = u32::from(port.0);
        let leg = Self::leg(link, role);
        let exit = abi::Exit { ifindex: link.index, kind: leg.kind(), reserved: 0 };
        self.clear_counts(tag)?;
        self.exits.set(tag, exit, 0).map_err(refused(maps::EXITS))?;
        self.tags.insert(link.index, tag, 0).map_err(refused(maps::TAGS))?;
        Ok(leg)
    }

    /// Takes the program off the interface of `port`.
    ///
    /// # Errors
    /// [`ExpressError::NotAttached`] or [`ExpressError::Map`]
    pub fn detach(&mut self, port: PortId) -> Result<(), ExpressError> {
        let (index, program) = self.attached.remove(&port).ok_or(ExpressError::NotAttached(port))?;
        drop(program);
        self.forget(port, index)
    }

    /// Whether `port` is attached.
    pub fn has(&self, port: PortId) -> bool {
        self.attached.contains_key(&port)
    }

    /// The epochs of networks.
    pub fn epochs(&self) -> Arc<Epochs> {
        Arc::clone(&self.epochs)
    }

    /// Where programs note the use of sessions.
    pub fn uses(&self) -> Uses {
        self.uses.clone()
    }

    /// Which frames of the uplink are ours.
    pub fn ours(&mut self) -> &mut Ours {
        &mut self.ours
    }

    /// Returns when no program is at work any more with what it looked up before the call.
    pub fn settle(&self) {
        super::epochs::await_programs();
    }

    /// A handle on the maps of flows, for a worker.
    ///
    /// # Errors
    /// [`ExpressError`] if there are no descriptors left.
    pub fn flows(&self) -> Result<Box<dyn Flows>, ExpressError> {
        Ok(Box::new(FlowMaps {
            flows: another(&self.flow_map, maps::FLOWS)?,
            tunnels: another(&self.tunnel_map, maps::TUNNELS)?,
            sessions: another(&self.session_map, maps::SESSIONS)?,
        }))
    }

    /// Every flow and session that is in the maps, good or not.
    ///
    /// # Errors
    /// [`ExpressError::Map`]
    pub fn list(&self) -> Result<Listed, ExpressError> {
        Ok(Listed {
            flows: all_of(&self.flows, maps::FLOWS)?,
            tunnels: all_of(&self.tunnels, maps::TUNNELS)?,
            sessions: all_of(&self.sessions, maps::SESSIONS)?,
        })
    }

    /// What passed `port` in this lane since it was attached, also after it was detached.
    ///
    /// # Errors
    /// [`ExpressError::Map`]
    pub fn port_counts(&self, port: PortId) -> Result<abi::PortCounts, ExpressError> {
        let per_cpu = self.port_counts.get(&u32::from(port.0), 0).map_err(refused(maps::PORT_COUNTS))?;
        let mut sum = abi::PortCounts::default();
        for counts in per_cpu.iter() {
            sum.rx_packets += counts.rx_packets;
            sum.rx_bytes += counts.rx_bytes;
            sum.tx_packets += counts.tx_packets;
            sum.tx_bytes += counts.tx_bytes;
        }
        Ok(sum)
    }

    /// What became of the frames seen so far.
    ///
    /// # Errors
    /// [`ExpressError::Map`]
    pub fn counters(&self) -> Result<ExpressCounters, ExpressError> {
        let sum = |event: Event| -> Result<u64, ExpressError> {
            let per_cpu = self.events.get(&(event as u32), 0).map_err(refused(maps::EVENTS))?;
            Ok(per_cpu.iter().sum())
        };
        Ok(ExpressCounters {
            hits: sum(Event::Hit)?,
            misses: sum(Event::Miss)?,
            confirms: sum(Event::Confirm)?,
            stale: sum(Event::Stale)?,
            passed: sum(Event::Passed)?,
            sent: sum(Event::Sent)?,
            no_exit: sum(Event::NoExit)?,
            no_tag: sum(Event::NoTag)?,
            no_headers: sum(Event::NoHeaders)?,
            carried: sum(Event::Carried)?,
        })
    }

    /// Puts a program on `link`: the first time, by what the kernel turns out to have.
    fn install(&mut self, link: &Link, name: &'static str) -> Result<Placed, ExpressError> {
        sweep(&link.name);
        let program = program(&mut self.object, name)?;
        if self.many
            && let Ok(placed) = Placed::create(program, link, Means::Clsact)
        {
            return Ok(placed);
        }
        let placed = match Placed::create(program, link, self.means) {
            Err(error) if self.exit.is_none() && self.means == Means::Tcx && tc::is_unknown(&error) => {
                self.means = Means::Clsact;
                Placed::create(program, link, self.means)
            }
            placed => placed,
        };
        placed.map_err(step(&format!("attaching {name} to {}", link.name)))
    }

    fn forget(&mut self, port: PortId, index: u32) -> Result<(), ExpressError> {
        self.tags.remove(&index).map_err(refused(maps::TAGS))?;
        Ok(self.exits.set(u32::from(port.0), abi::Exit::default(), 0).map_err(refused(maps::EXITS))?)
    }

    fn clear_counts(&mut self, tag: u32) -> Result<(), ExpressError> {
        let processors = aya::util::nr_cpus().map_err(|(what, source)| step(what)(source))?;
        let zero = vec![abi::PortCounts::default(); processors];
        let zero = zero.try_into().map_err(step("a counter for each processor"))?;
        Ok(self.port_counts.set(tag, zero, 0).map_err(refused(maps::PORT_COUNTS))?)
    }
}

/// The maps of flows, as one worker has them.
struct FlowMaps {
    flows: BpfMap<MapData, abi::FlowKey, abi::Encap>,
    tunnels: BpfMap<MapData, abi::TunnelKey, abi::Way>,
    sessions: BpfMap<MapData, abi::SessionKey, abi::Rewrite>,
}

impl Flows for FlowMaps {
    fn put_flow(&mut self, key: &abi::FlowKey, flow: &abi::Encap) -> Result<(), FlowsError> {
        self.flows.insert(key, flow, 0).map_err(|_| FlowsError)
    }

    fn put_tunnel(&mut self, key: &abi::TunnelKey, way: &abi::Way) -> Result<(), FlowsError> {
        self.tunnels.insert(key, way, 0).map_err(|_| FlowsError)
    }

    fn put_session(&mut self, key: &abi::SessionKey, rewrite: &abi::Rewrite) -> Result<(), FlowsError> {
        self.sessions.insert(key, rewrite, 0).map_err(|_| FlowsError)
    }

    fn remove_flow(&mut self, key: &abi::FlowKey, expires: u64) {
        if self.flows.get(key, 0).is_ok_and(|flow| flow.way.expires == expires) {
            // It may be gone by now: whoever took it out wanted the same.
            let _ = self.flows.remove(key);
        }
    }

    fn remove_tunnel(&mut self, key: &abi::TunnelKey, expires: u64) {
        if self.tunnels.get(key, 0).is_ok_and(|way| way.expires == expires) {
            // As above.
            let _ = self.tunnels.remove(key);
        }
    }

    fn remove_session(&mut self, key: &abi::SessionKey) {
        // It may have expired, and been taken out already.
        let _ = self.sessions.remove(key);
    }
}

/// Takes off `interface` what a process has left there that had no link, and that nobody keeps;
/// says whether there was any.
pub fn sweep(interface: &str) -> bool {
    let names = [abi::ACCESS_PROGRAM, abi::UPLINK_PROGRAM, abi::EXIT_PROGRAM];
    // Fails where there is none.
    names.map(|name| qdisc_detach_program(interface, TcAttachType::Ingress, name).is_ok()).contains(&true)
}

/// The number of the program of an express lane that is on `interface` by a link, if there is one.
/// Where the kernel does not say, there is none.
pub fn on(interface: &str) -> Option<u32> {
    let (_, programs) = SchedClassifier::query_tcx(interface, TcAttachType::Ingress).ok()?;
    let names = [abi::ACCESS_PROGRAM, abi::UPLINK_PROGRAM, abi::EXIT_PROGRAM];
    let ours = programs.iter().find(|program| program.name_as_str().is_some_and(|name| names.contains(&name)));
    ours.map(aya::programs::ProgramInfo::id)
}

/// The program for a port of this role.
fn program_of(role: Role) -> &'static str {
    if role == Role::Uplink { abi::UPLINK_PROGRAM } else { abi::ACCESS_PROGRAM }
}

/// A descriptor of a map that is still in `object`.
fn descriptor(object: &Ebpf, name: &'static str) -> Result<OwnedFd, ExpressError> {
    let data = match object.map(name) {
        Some(Map::HashMap(data) | Map::Array(data)) => data,
        _ => return Err(MapFault::Missing { name }.into()),
    };
    data.fd().as_fd().try_clone_to_owned().map_err(step(&format!("another descriptor of {name}")))
}

/// Another handle on the map behind `descriptor`.
fn another<K: Pod, V: Pod>(descriptor: &OwnedFd, name: &'static str) -> Result<BpfMap<MapData, K, V>, ExpressError> {
    let copy = descriptor.try_clone().map_err(step(&format!("another descriptor of {name}")))?;
    let data = MapData::from_fd(copy).map_err(refused(name))?;
    Ok(Map::HashMap(data).try_into().map_err(refused(name))?)
}

fn all_of<K: Pod, V: Pod>(map: &BpfMap<MapData, K, V>, name: &'static str) -> Result<Vec<(K, V)>, ExpressError> {
    // Workers remove entries meanwhile; then the kernel begins again, and may show some twice.
    Ok(map.iter().take(LISTED).collect::<Result<_, _>>().map_err(refused(name))?)
}

fn program<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, ExpressError> {
    let program = object.program_mut(name).ok_or(ExpressError::Missing { name })?;
    program.try_into().map_err(|source| ExpressError::Program { name, source })
}

fn step(step: &str) -> impl FnOnce(io::Error) -> ExpressError + use<> {
    let step = step.to_owned();
    move |source| ExpressError::Step { step, source }
}

/// More interfaces than this are many at once: for each the kernel waits some ten milliseconds.
const MANY: usize = 64;

/// Set to `clsact`, has programs be attached as on kernels that have nothing better.
const MEANS: &str = "VXLANE_TC";

/// As many entries of a map as are shown at once.
const LISTED: usize = 2 * abi::MAX_FLOWS as usize;

/// Built by `cargo xtask ebpf` from `ebpf/express`.
const EXPRESS_OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf/express/express.o");
