//! Puts the programs of the express lane on interfaces, fills their maps, and takes them away again.
//!
//! Whatever is done to an interface here is undone when it is detached or when [`Express`] is
//! dropped. Programs that others have put there stay, and come first.

use std::{
    collections::HashMap,
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use aya::{
    Ebpf, EbpfError, Pod,
    maps::{Array, HashMap as BpfMap, Map, MapData, MapError, PerCpuArray},
    programs::{ProgramError, SchedClassifier},
};
use vxlane_abi::{
    VtepAddress,
    express::{self as abi, Event, maps},
};

pub use super::epochs::Epochs;
use super::{Role, installed::Installed};
use crate::{
    express::{Flows, FlowsError, Leg},
    ids::PortId,
    link::{Link, LinkError, ethtool::Ethtool},
    memlock,
};

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
        /// The program or map it lacks.
        name: &'static str,
    },
    /// A map would not be read or written.
    #[error("BPF map {name}")]
    Map {
        /// Its name.
        name: &'static str,
        /// What aya or the kernel answered.
        source: MapError,
    },
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
    /// On the uplink, not VXLAN to our VTEP: left to the host.
    pub passed: u64,
    /// From workers.
    pub sent: u64,
    /// From workers, for a port that is gone: dropped.
    pub no_exit: u64,
    /// No memory for a tag: dropped.
    pub no_tag: u64,
}

/// One instance of the programs, on any number of interfaces of one network namespace.
pub struct Express {
    // First, so that they are dropped first: detaching needs the programs.
    attached: HashMap<PortId, (u32, Installed)>,
    exit: Option<Installed>,
    tags: BpfMap<MapData, u32, u32>,
    exits: Array<MapData, abi::Exit>,
    setup: Array<MapData, abi::Setup>,
    port_counts: PerCpuArray<MapData, abi::PortCounts>,
    events: PerCpuArray<MapData, u64>,
    flows: BpfMap<MapData, abi::FlowKey, abi::Encap>,
    tunnels: BpfMap<MapData, abi::TunnelKey, abi::Way>,
    flow_map: OwnedFd,
    tunnel_map: OwnedFd,
    epochs: Arc<Epochs>,
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
        let epochs = descriptor(&object, maps::EPOCHS)?;
        let epochs = Epochs::of_map(epochs.as_fd()).map_err(step("mapping the epochs"))?;
        Ok(Self {
            flow_map: descriptor(&object, maps::FLOWS)?,
            tunnel_map: descriptor(&object, maps::TUNNELS)?,
            attached: HashMap::new(),
            exit: None,
            tags: take(&mut object, maps::TAGS)?,
            exits: take(&mut object, maps::EXITS)?,
            setup: take(&mut object, maps::SETUP)?,
            port_counts: take(&mut object, maps::PORT_COUNTS)?,
            events: take(&mut object, maps::EVENTS)?,
            flows: take(&mut object, maps::FLOWS)?,
            tunnels: take(&mut object, maps::TUNNELS)?,
            epochs: Arc::new(epochs),
            object,
        })
    }

    /// Says which datagrams are ours, and that `punt` leads to the workers. That interface is one
    /// end of a pair, whose other end the workers have the rings of.
    ///
    /// # Errors
    /// [`ExpressError`]
    pub fn set_up(&mut self, address: Ipv4Addr, port: u16, punt: &str) -> Result<(), ExpressError> {
        let link = Link::get(punt)?;
        let finished = Ethtool::open(link.index).and_then(|device| device.finish_frames());
        finished.map_err(step(&format!("ethtool -K {punt} tx off txvlan off")))?;
        self.exit = Some(self.install(&link, abi::EXIT_PROGRAM)?);
        let vtep = VtepAddress { address: address.octets(), port: port.to_be_bytes(), reserved: [0; 2] };
        let setup = abi::Setup { vtep, punt: link.index, queues: link.tx_queues };
        self.setup.set(0, setup, 0).map_err(map_failed(maps::SETUP))
    }

    /// Whether `link` can have this lane: what an endpoint sends through a veth has all of the
    /// kernel's own way before it, and what is sent into one all of it behind.
    pub fn suits(link: &Link) -> bool {
        link.kind.as_deref() == Some("veth")
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
        let unfit = |why| ExpressError::Unfit { interface: interface.to_owned(), why };
        if !Self::suits(&link) {
            return Err(unfit("it is no veth"));
        }
        let tag = u32::from(port.0);
        if tag >= abi::MAX_TAGS {
            return Err(unfit("too many ports"));
        }
        let name = if role == Role::Uplink { abi::UPLINK_PROGRAM } else { abi::ACCESS_PROGRAM };
        let leg = Self::leg(&link, role);
        let exit = abi::Exit { ifindex: link.index, kind: leg.kind() };
        self.exits.set(tag, exit, 0).map_err(map_failed(maps::EXITS))?;
        self.tags.insert(link.index, tag, 0).map_err(map_failed(maps::TAGS))?;
        match self.install(&link, name) {
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
        }))
    }

    /// Every flow that is in the maps, good or not.
    ///
    /// # Errors
    /// [`ExpressError::Map`]
    #[expect(clippy::type_complexity, reason = "two lists, of what the two maps hold")]
    pub fn list(&self) -> Result<(Vec<(abi::FlowKey, abi::Encap)>, Vec<(abi::TunnelKey, abi::Way)>), ExpressError> {
        // Workers remove flows meanwhile; then the kernel begins again, and may show some twice.
        let flows = self.flows.iter().take(LISTED).collect::<Result<_, _>>().map_err(map_failed(maps::FLOWS))?;
        let tunnels = self.tunnels.iter().take(LISTED).collect::<Result<_, _>>().map_err(map_failed(maps::TUNNELS))?;
        Ok((flows, tunnels))
    }

    /// What passed `port` in this lane, since it was attached.
    ///
    /// # Errors
    /// [`ExpressError::Map`]
    pub fn port_counts(&self, port: PortId) -> Result<abi::PortCounts, ExpressError> {
        let per_cpu = self.port_counts.get(&u32::from(port.0), 0).map_err(map_failed(maps::PORT_COUNTS))?;
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
            let per_cpu = self.events.get(&(event as u32), 0).map_err(map_failed(maps::EVENTS))?;
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
        })
    }

    fn install(&mut self, link: &Link, name: &'static str) -> Result<Installed, ExpressError> {
        let program = program(&mut self.object, name)?.fd();
        let program = program.map_err(|source| ExpressError::Program { name, source })?;
        Installed::create_tc(program.as_fd(), link.index).map_err(step(&format!("attaching {name} to {}", link.name)))
    }

    fn forget(&mut self, port: PortId, index: u32) -> Result<(), ExpressError> {
        let tag = u32::from(port.0);
        let processors = aya::util::nr_cpus().map_err(|(what, source)| step(what)(source))?;
        let zero = vec![abi::PortCounts::default(); processors];
        let zero = zero.try_into().map_err(step("a counter for each processor"))?;
        self.tags.remove(&index).map_err(map_failed(maps::TAGS))?;
        self.exits.set(tag, abi::Exit::default(), 0).map_err(map_failed(maps::EXITS))?;
        self.port_counts.set(tag, zero, 0).map_err(map_failed(maps::PORT_COUNTS))
    }
}

/// The maps of flows, as one worker has them.
struct FlowMaps {
    flows: BpfMap<MapData, abi::FlowKey, abi::Encap>,
    tunnels: BpfMap<MapData, abi::TunnelKey, abi::Way>,
}

impl Flows for FlowMaps {
    fn put_flow(&mut self, key: &abi::FlowKey, flow: &abi::Encap) -> Result<(), FlowsError> {
        self.flows.insert(key, flow, 0).map_err(|_| FlowsError)
    }

    fn put_tunnel(&mut self, key: &abi::TunnelKey, way: &abi::Way) -> Result<(), FlowsError> {
        self.tunnels.insert(key, way, 0).map_err(|_| FlowsError)
    }

    fn remove_flow(&mut self, key: &abi::FlowKey) {
        // It may be gone: another worker had the same.
        let _ = self.flows.remove(key);
    }

    fn remove_tunnel(&mut self, key: &abi::TunnelKey) {
        // As above.
        let _ = self.tunnels.remove(key);
    }
}

/// A descriptor of a map that is still in `object`.
fn descriptor(object: &Ebpf, name: &'static str) -> Result<OwnedFd, ExpressError> {
    let data = match object.map(name) {
        Some(Map::HashMap(data) | Map::Array(data)) => data,
        _ => return Err(ExpressError::Missing { name }),
    };
    data.fd().as_fd().try_clone_to_owned().map_err(step(&format!("another descriptor of {name}")))
}

/// Another handle on the map behind `descriptor`.
fn another<K: Pod, V: Pod>(descriptor: &OwnedFd, name: &'static str) -> Result<BpfMap<MapData, K, V>, ExpressError> {
    let copy = descriptor.try_clone().map_err(step(&format!("another descriptor of {name}")))?;
    let data = MapData::from_fd(copy).map_err(map_failed(name))?;
    Map::HashMap(data).try_into().map_err(map_failed(name))
}

fn program<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, ExpressError> {
    let program = object.program_mut(name).ok_or(ExpressError::Missing { name })?;
    program.try_into().map_err(|source| ExpressError::Program { name, source })
}

fn take<T>(object: &mut Ebpf, name: &'static str) -> Result<T, ExpressError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = object.take_map(name).ok_or(ExpressError::Missing { name })?;
    map.try_into().map_err(map_failed(name))
}

fn map_failed(name: &'static str) -> impl FnOnce(MapError) -> ExpressError {
    move |source| ExpressError::Map { name, source }
}

fn step(step: &str) -> impl FnOnce(io::Error) -> ExpressError + use<> {
    let step = step.to_owned();
    move |source| ExpressError::Step { step, source }
}

/// As many flows as are shown at once.
const LISTED: usize = 2 * abi::MAX_FLOWS as usize;

/// Built by `cargo xtask ebpf` from `ebpf/express`.
const EXPRESS_OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf/express/express.o");
