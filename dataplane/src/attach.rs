//! Puts the steering program on interfaces and sockets into its map, and takes both away again.
//!
//! Whatever is done to an interface here is undone when it is detached or when [`Steer`] is
//! dropped. A program that somebody else put there is never replaced.

mod epochs;
pub mod express;
mod installed;
mod kept;
mod mapped;
pub mod maps;
mod merging;
pub mod ours;
mod slots;
mod tc;
mod uses;

use crate::{
    link::{Link, LinkError, LinkProgram, XdpMode},
    memlock,
};
use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{HashMap as BpfMap, MapData, PerCpuArray, XskMap},
    programs::{ProgramError, Xdp},
};
use installed::Installed;
pub use kept::KeptLink;
use maps::{MapFault, refused, take};
use merging::Unmerged;
use ours::Ours;
use slots::Slots;
use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, RawFd},
};
use vxlane_abi as abi;

/// What is steered to the ring of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What [`Ours`] says; the rest stays the host's.
    Uplink,
    /// Every frame.
    Access,
    /// Every frame, and without a socket none is left to the host: the workers' end of the
    /// express lane.
    Lane,
}

/// Where the program is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver where it can, else in the network stack.
    #[default]
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the network stack.
    Generic,
}

/// An interface that now carries the steering program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its index: how [`Steer::serve`] and [`Steer::detach`] know it.
    pub ifindex: u32,
    /// Where the program runs.
    pub mode: XdpMode,
    /// How many receive queues can be served.
    pub queues: u32,
}

/// What became of the frames the program saw, over all interfaces, since it was loaded.
/// Each frame counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteerCounters {
    /// Handed to a socket.
    pub redirected: u64,
    /// Ours, but no socket serves that queue.
    pub no_socket: u64,
    /// On an uplink, not VXLAN to our VTEP.
    pub not_vxlan: u64,
    /// On an uplink, a fragment of UDP to our address.
    pub fragment: u64,
    /// From an interface that is just being attached or detached.
    pub unknown_port: u64,
    /// From the express lane, and no socket serves that queue: dropped.
    pub no_worker: u64,
}

impl SteerCounters {
    /// Frames left to the host, for whatever reason.
    pub fn passed(&self) -> u64 {
        self.no_socket + self.not_vxlan + self.fragment + self.unknown_port
    }
}

/// Why an interface could not be steered.
#[derive(Debug, thiserror::Error)]
pub enum SteerError {
    /// The object did not load.
    #[error("loading the steering program's object (is this root, with BPF in the kernel?)")]
    Load(#[from] EbpfError),
    /// The kernel refused the program.
    #[error("BPF_PROG_LOAD {}", abi::STEER_PROGRAM)]
    Program(#[source] ProgramError),
    /// The object is not the one this was written for.
    #[error("the steering program's object has no {name}")]
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
    /// The interface already carries an XDP program.
    #[error("{interface} already carries the {} XDP program {}", .program.mode, .program.id)]
    Occupied {
        /// The interface.
        interface: String,
        /// The program found there. Its number is 0 when it arrived only just now.
        program: LinkProgram,
    },
    /// This interface cannot have that many queues, or the socket map is full.
    #[error("{interface}: no room for {queues} queues in a map of {}", abi::MAX_SLOTS)]
    NoSlots {
        /// The interface.
        interface: String,
        /// How many queues it asked for.
        queues: u32,
    },
    /// The kernel would not attach the program.
    #[error("attaching the steering program to {interface} in {mode} mode")]
    Attach {
        /// The interface.
        interface: String,
        /// The mode tried last.
        mode: XdpMode,
        /// What the kernel answered.
        source: io::Error,
    },
    /// Merging of received frames could not be turned off.
    #[error("ethtool -K {interface} gro off lro off")]
    Merging {
        /// The interface.
        interface: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel would not tell of the program on an interface, or not let it outlive a process.
    #[error("keeping the steering program on interface {ifindex}")]
    Keep {
        /// The interface.
        ifindex: u32,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The program that was kept is no longer on the interface.
    #[error("{interface} does not carry the steering program that was kept")]
    NotKept {
        /// The interface.
        interface: String,
    },
    /// No interface of that index is attached.
    #[error("interface {ifindex} is not attached")]
    NotAttached {
        /// The index asked for.
        ifindex: u32,
    },
    /// The interface has no such queue.
    #[error("interface {ifindex} has {queues} queues, none of them {queue}")]
    NoQueue {
        /// The interface.
        ifindex: u32,
        /// The queue asked for.
        queue: u32,
        /// How many there are.
        queues: u32,
    },
}

/// One instance of the steering program, on any number of interfaces of one network namespace.
///
/// Interfaces are told apart by index, and indices of different namespaces may be the same:
/// load one instance for each namespace.
pub struct Steer {
    // First, so that it is dropped first: detaching needs the program.
    attached: HashMap<u32, Port>,
    ports: BpfMap<MapData, u32, abi::PortSteer>,
    sockets: XskMap<MapData>,
    ours: Ours,
    counters: PerCpuArray<MapData, u64>,
    object: Ebpf,
}

/// An attached interface. Dropped in this order: the program leaves, then merging comes back.
struct Port {
    slots: Slots,
    program: Installed,
    unmerged: Option<Unmerged>,
}

impl Steer {
    /// Loads the program and its maps into the kernel. Nothing is attached yet.
    ///
    /// # Errors
    /// [`SteerError::Load`] or [`SteerError::Program`] when the kernel refuses, for want of
    /// privilege most often; the latter holds the verifier's log.
    pub fn load() -> Result<Self, SteerError> {
        memlock::lift();
        // The program is not fitted to the types of the kernel, of which there are a hundred
        // thousand to read: half of all that a start takes.
        let mut object = EbpfLoader::new().btf(None).load(STEER_OBJECT)?;
        program(&mut object)?.load().map_err(SteerError::Program)?;
        Ok(Self {
            attached: HashMap::new(),
            ports: take(&mut object, abi::maps::PORTS)?,
            sockets: take(&mut object, abi::maps::XSKS)?,
            ours: Ours::of(&mut object)?,
            counters: take(&mut object, abi::maps::COUNTERS)?,
            object,
        })
    }

    /// Which frames of uplinks are ours.
    pub fn ours(&mut self) -> &mut Ours {
        &mut self.ours
    }

    /// Puts the program on `interface`, for its first `queues` receive queues. Until
    /// [`serve`](Self::serve) gives a queue a socket, its frames pass to the host.
    ///
    /// # Errors
    /// [`SteerError::Occupied`] when the interface carries a program, ours included; the others
    /// say what failed. The interface is then as it was.
    pub fn attach(
        &mut self,
        interface: &str,
        role: Role,
        mode: AttachMode,
        queues: u32,
    ) -> Result<Attached, SteerError> {
        let link = Link::get(interface)?;
        if let Some(program) = link.xdp {
            return Err(SteerError::Occupied { interface: interface.to_owned(), program });
        }
        let slots = self.register(&link, role, queues)?;
        match self.attach_program(&link, mode) {
            Ok((program, unmerged, mode)) => {
                let port = Port { slots, program, unmerged };
                self.attached.insert(link.index, port);
                Ok(Attached { ifindex: link.index, mode, queues })
            }
            Err(error) => {
                // The first error is the one to report.
                let _ = self.ports.remove(&link.index);
                Err(error)
            }
        }
    }

    /// Hands the frames of one receive queue to an AF_XDP socket bound to that queue. When
    /// the socket is closed the kernel takes it out again and the frames pass to the host.
    ///
    /// # Errors
    /// [`SteerError::NotAttached`], [`SteerError::NoQueue`], or [`SteerError::Map`] when
    /// `socket` is not an AF_XDP socket.
    pub fn serve(&mut self, ifindex: u32, queue: u32, socket: RawFd) -> Result<(), SteerError> {
        let port = self.attached.get(&ifindex).ok_or(SteerError::NotAttached { ifindex })?;
        let queues = port.slots.count;
        let slot = port.slots.of(queue).ok_or(SteerError::NoQueue { ifindex, queue, queues })?;
        Ok(self.sockets.set(slot, socket, 0).map_err(refused(abi::maps::XSKS))?)
    }

    /// Whether the program still is on an interface: it is not when the interface has gone, or
    /// when somebody has taken the program away.
    ///
    /// # Errors
    /// [`SteerError::NotAttached`], or [`SteerError::Keep`] if the kernel does not say.
    pub fn is_on(&self, ifindex: u32) -> Result<bool, SteerError> {
        let port = self.attached.get(&ifindex).ok_or(SteerError::NotAttached { ifindex })?;
        let info = port.program.info().map_err(|source| SteerError::Keep { ifindex, source })?;
        Ok(info.ifindex == ifindex)
    }

    /// Takes the program off an interface and leaves it as it was found. An interface that has
    /// itself gone meanwhile is forgotten all the same.
    ///
    /// # Errors
    /// [`SteerError::NotAttached`]
    pub fn detach(&mut self, ifindex: u32) -> Result<(), SteerError> {
        let port = self.attached.remove(&ifindex).ok_or(SteerError::NotAttached { ifindex })?;
        let slots = port.slots;
        drop(port);
        self.clear_sockets(slots);
        Ok(self.ports.remove(&ifindex).map_err(refused(abi::maps::PORTS))?)
    }

    /// What became of the frames seen so far.
    ///
    /// # Errors
    /// [`SteerError::Map`]
    pub fn counters(&self) -> Result<SteerCounters, SteerError> {
        let sum = |counter: abi::Counter| -> Result<u64, SteerError> {
            let per_cpu = self.counters.get(&(counter as u32), 0).map_err(refused(abi::maps::COUNTERS))?;
            Ok(per_cpu.iter().sum())
        };
        Ok(SteerCounters {
            redirected: sum(abi::Counter::Redirected)?,
            no_socket: sum(abi::Counter::NoSocket)?,
            not_vxlan: sum(abi::Counter::NotVxlan)?,
            fragment: sum(abi::Counter::Fragment)?,
            unknown_port: sum(abi::Counter::UnknownPort)?,
            no_worker: sum(abi::Counter::NoWorker)?,
        })
    }

    /// Gives an interface slots for its queues and tells the program of them.
    fn register(&mut self, link: &Link, role: Role, queues: u32) -> Result<Slots, SteerError> {
        // An entry may be left of an interface that has gone and whose index came back.
        self.attached.remove(&link.index);
        let taken: Vec<Slots> = self.attached.values().map(|port| port.slots).collect();
        let slots = slots::find(&taken, queues, abi::MAX_SLOTS)
            .ok_or_else(|| SteerError::NoSlots { interface: link.name.clone(), queues })?;
        self.clear_sockets(slots);
        let value = abi::PortSteer {
            role: match role {
                Role::Uplink => abi::ROLE_UPLINK,
                Role::Access => abi::ROLE_ACCESS,
                Role::Lane => abi::ROLE_LANE,
            },
            first_slot: slots.first,
            queues: slots.count,
        };
        self.ports.insert(link.index, value, 0).map_err(refused(abi::maps::PORTS))?;
        Ok(slots)
    }

    fn attach_program(
        &mut self,
        link: &Link,
        mode: AttachMode,
    ) -> Result<(Installed, Option<Unmerged>, XdpMode), SteerError> {
        if mode != AttachMode::Generic {
            match self.attach_in(link, XdpMode::Native) {
                Ok(program) => return Ok((program, None, XdpMode::Native)),
                Err(SteerError::Attach { source, .. }) if mode == AttachMode::Auto && driver_cannot(&source) => {}
                Err(error) => return Err(error),
            }
        }
        let unmerged =
            Unmerged::new(link.index).map_err(|source| SteerError::Merging { interface: link.name.clone(), source })?;
        let program = self.attach_in(link, XdpMode::Generic)?;
        Ok((program, Some(unmerged), XdpMode::Generic))
    }

    fn attach_in(&mut self, link: &Link, mode: XdpMode) -> Result<Installed, SteerError> {
        let program = program(&mut self.object)?.fd().map_err(SteerError::Program)?;
        Installed::create(program.as_fd(), link.index, mode).map_err(|source| match source.raw_os_error() {
            // Somebody was faster than the look at the link.
            Some(libc::EBUSY | libc::EEXIST) => {
                SteerError::Occupied { interface: link.name.clone(), program: LinkProgram { id: 0, mode } }
            }
            _ => SteerError::Attach { interface: link.name.clone(), mode, source },
        })
    }

    /// Empties slots, so that no frame of a new port reaches a socket of an old one.
    fn clear_sockets(&mut self, slots: Slots) {
        for slot in (0..slots.count).filter_map(|queue| slots.of(queue)) {
            // An empty slot is refused with ENOENT, and that is what we are after.
            let _ = self.sockets.unset(slot);
        }
    }
}

fn program(object: &mut Ebpf) -> Result<&mut Xdp, SteerError> {
    let missing = SteerError::Missing { name: abi::STEER_PROGRAM };
    let program = object.program_mut(abi::STEER_PROGRAM).ok_or(missing)?;
    program.try_into().map_err(SteerError::Program)
}

/// Whether native mode was refused for what the driver is or how the device is set up, so that
/// generic mode is worth a try: no XDP at all, an MTU or a number of queues it cannot have with
/// XDP, or features in the way.
fn driver_cannot(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    matches!(code, Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE | libc::ENOSPC | libc::E2BIG))
}

/// Built by `cargo xtask ebpf` from `ebpf/steer`.
const STEER_OBJECT: &[u8] = aya::include_bytes_aligned!("../../ebpf/steer/steer.o");
