//! A worker without I/O: real pipeline, real encapsulation, ports that cost a memory copy.
//!
//! What is left is the work that vxlane itself does for a packet. The receiving half lends the
//! same frames over and over; the transmitting half writes into frames that are taken in turns.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::RawFd,
    sync::Arc,
};

use vxlane_dataplane::{
    bridge::{CACHED_STATIONS, Origin},
    clock::Instant,
    handover::Mailbox,
    ids::{NetworkId, PortId, QueueId, VtepId, WorkerId},
    port::{BURST, Census, KernelDrops, PutError, Receive, Transmit},
    tables::{Guard, LocalVtep, Network, Port, Role, Tables, Vtep},
    vtep::{Flow, OVERHEAD, OVERHEAD_V6, Template},
    wire::{Ethernet, MacAddr, Vni, checksum},
    worker::Worker,
};

/// Frames in one burst, as the figures in the issue tracker and the literature have it.
pub const DRY_BURST: usize = 32;
const ROOM: usize = 2048;
/// Transmit frames of a port.
const ROOMS: usize = 2 * BURST;

/// How far apart two packets' stations are: without a factor in common with powers of two or
/// ten, so that all stations get their turn.
const STRIDE: usize = 7919;

/// Lends the same frames at each [`take`](Receive::take).
#[derive(Debug)]
pub struct DryReceive {
    plan: DryPlan,
    frames: Vec<Vec<u8>>,
    next: usize,
    station: usize,
    running: bool,
}

impl DryReceive {
    /// Addresses frame `index` of the burst to the next station, as a device writes the next
    /// packet into a frame that it was given back: the memory of the frames stays warm while
    /// the stations go round the whole table.
    fn address(&mut self, index: usize) {
        self.station += STRIDE;
        if self.station >= self.plan.stations {
            self.station %= self.plan.stations;
        }
        // The stations of a network are as far apart as there are networks.
        let network = if self.plan.networks == 1 { 0 } else { self.station % self.plan.networks };
        let (plan, station) = (self.plan, self.station);
        let frame = self.frame(index);
        match plan.path {
            Path::Flood => {}
            // Packets of the other networks come through the uplink only.
            Path::Encap | Path::Guarded | Path::Encap6 | Path::Local => {
                frame[..6].copy_from_slice(&mac(station - network).0)
            }
            Path::Decap => {
                // Inner destination and VNI; the tables number VNIs from 1.
                frame[OVERHEAD..OVERHEAD + 6].copy_from_slice(&mac(station).0);
                let vni = u32::try_from(network + 1).unwrap_or(0).to_be_bytes();
                frame[OVERHEAD - 4..OVERHEAD - 1].copy_from_slice(&vni[1..]);
            }
            Path::Decap6 => readdress(frame, mac(station)),
        }
    }
}

/// Addresses the overlay frame in an underlay frame over IPv6 to `to`, and corrects the UDP checksum.
fn readdress(frame: &mut [u8], to: MacAddr) {
    let (destination, udp) = (OVERHEAD_V6..OVERHEAD_V6 + 6, OVERHEAD_V6 - 16);
    let words = frame[destination.clone()].chunks_exact(2).zip(to.0.chunks_exact(2));
    let word = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
    let change = words.map(|(before, after)| checksum::change(word(before), word(after))).sum();
    let checksum = checksum::apply(word(&frame[udp + 6..udp + 8]), change);
    frame[udp + 6..udp + 8].copy_from_slice(&checksum.to_be_bytes());
    frame[destination].copy_from_slice(&to.0);
}

impl Receive for DryReceive {
    fn take(&mut self) -> usize {
        if !self.running {
            return 0;
        }
        self.next = (self.next + DRY_BURST) % FRAMES;
        for index in 0..DRY_BURST {
            self.address(index);
        }
        DRY_BURST
    }

    #[inline]
    fn frame(&mut self, index: usize) -> &mut [u8] {
        &mut self.frames[(self.next + index) % FRAMES]
    }

    fn release(&mut self) {}

    fn fd(&self) -> Option<RawFd> {
        None
    }

    fn kernel_drops(&self) -> KernelDrops {
        KernelDrops::default()
    }

    fn census(&mut self) -> Census {
        Census::default()
    }
}

/// Writes into frames taken in turns.
#[derive(Debug)]
pub struct DryTransmit {
    frames: Box<[[u8; ROOM]; ROOMS]>,
    next: usize,
}

impl Transmit for DryTransmit {
    #[inline]
    fn lend(&mut self, length: usize) -> Result<&mut [u8], PutError> {
        let at = self.next;
        self.next = (at + 1) % ROOMS;
        self.frames[at].get_mut(..length).ok_or(PutError::TooLong)
    }

    fn submit(&mut self) -> usize {
        0
    }

    fn census(&mut self) -> Census {
        Census::default()
    }
}

/// What the packets of a dry run go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// From an endpoint into a tunnel.
    Encap,
    /// The same of an endpoint whose addresses are known, and guarded.
    Guarded,
    /// From a tunnel to an endpoint.
    Decap,
    /// From an endpoint into a tunnel over IPv6, with a UDP checksum.
    Encap6,
    /// From such a tunnel to an endpoint.
    Decap6,
    /// From an endpoint to its neighbour on the host.
    Local,
    /// From an endpoint to everybody: one neighbour and one peer.
    Flood,
}

/// How a dry run is set up.
#[derive(Clone, Copy, Debug)]
pub struct DryPlan {
    /// What its packets go through.
    pub path: Path,
    /// Bytes of the overlay frame, without FCS.
    pub frame: usize,
    /// Stations that are known, and that packets go to in turns (up to 65,536 of them).
    pub stations: usize,
    /// Networks that they are spread over.
    pub networks: usize,
}

/// A worker with two ports in each network and one uplink, all of them dry.
pub struct DryRun {
    worker: Worker<DryReceive, DryTransmit>,
    now: Instant,
}

const LOCAL: LocalVtep = end(1);
const REMOTE: LocalVtep = end(2);
const MAC: [MacAddr; 2] = [MacAddr([2, 0xaa, 0, 0, 0, 1]), MacAddr([2, 0xaa, 0, 0, 0, 2])];
const SENDER: MacAddr = MacAddr([2, 0xcc, 0, 0, 0, 1]);
const SENDER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const UPLINK: PortId = PortId(0);
const ACCESS: PortId = PortId(1);
const NEIGHBOUR: PortId = PortId(2);
const PEER: VtepId = VtepId(0);

/// A VTEP with an address of each family.
const fn end(last: u8) -> LocalVtep {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last as u16);
    LocalVtep::new(Some(Ipv4Addr::new(192, 0, 2, last)), Some(v6), 4789)
}

impl Path {
    /// What a dry run goes through, by its name.
    pub const ALL: [Self; 7] =
        [Self::Encap, Self::Guarded, Self::Decap, Self::Encap6, Self::Decap6, Self::Local, Self::Flood];

    fn is_encap(self) -> bool {
        matches!(self, Self::Encap | Self::Guarded | Self::Encap6)
    }

    fn is_decap(self) -> bool {
        matches!(self, Self::Decap | Self::Decap6)
    }

    /// The address by which `end` takes part.
    fn address(self, end: LocalVtep) -> Option<IpAddr> {
        match self {
            Self::Encap6 | Self::Decap6 => end.v6.map(IpAddr::V6),
            Self::Encap | Self::Guarded | Self::Decap | Self::Local | Self::Flood => end.v4.map(IpAddr::V4),
        }
    }

    /// The name, as `dry-run` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Encap => "encap",
            Self::Guarded => "guarded",
            Self::Decap => "decap",
            Self::Encap6 => "encap6",
            Self::Decap6 => "decap6",
            Self::Local => "local",
            Self::Flood => "flood",
        }
    }
}

/// The dry ports alone: frames are lent and taken back, and nothing happens to them.
#[derive(Debug)]
pub struct DryHarness {
    receive: DryReceive,
    transmit: DryTransmit,
    /// How much longer a frame is when it leaves.
    growth: isize,
    /// With many stations a worker looks at every frame twice.
    looks_ahead: bool,
}

impl DryHarness {
    /// The ports that a [`DryRun`] of `plan` has.
    pub fn new(plan: &DryPlan) -> Self {
        let (overhead, overhead_v6) = (OVERHEAD.cast_signed(), OVERHEAD_V6.cast_signed());
        let growth = match plan.path {
            Path::Encap | Path::Guarded => overhead,
            Path::Decap => -overhead,
            Path::Encap6 => overhead_v6,
            Path::Decap6 => -overhead_v6,
            Path::Local | Path::Flood => 0,
        };
        let looks_ahead = plan.stations > CACHED_STATIONS;
        Self { receive: receive(plan, frames(plan), true), transmit: transmit(), growth, looks_ahead }
    }

    /// What a burst asks of the ports.
    #[inline(never)]
    pub fn burst_of_packets(&mut self) {
        let count = self.receive.take();
        if self.looks_ahead {
            (0..count).for_each(|index| _ = std::hint::black_box(self.receive.frame(index).len()));
        }
        for index in 0..count {
            let length = self.receive.frame(index).len().saturating_add_signed(self.growth);
            std::hint::black_box(self.transmit.lend(length).is_ok());
        }
        self.receive.release();
        self.transmit.submit();
    }
}

fn receive(plan: &DryPlan, frames: Vec<Vec<u8>>, running: bool) -> DryReceive {
    DryReceive { plan: *plan, frames, next: 0, station: 0, running }
}

fn transmit() -> DryTransmit {
    DryTransmit { frames: Box::new([[0; ROOM]; ROOMS]), next: 0 }
}

impl DryRun {
    /// A worker whose MAC table is as `plan` says and whose packets are about to come.
    ///
    /// # Errors
    /// The reason, where the plan has more than fits the ids.
    pub fn new(plan: &DryPlan) -> Result<Self, Box<dyn std::error::Error>> {
        let tables = Arc::new(tables(plan)?);
        let mut worker = Worker::new(
            WorkerId(0),
            plan.stations + plan.networks + 1024,
            Arc::clone(&tables),
            Arc::<[Mailbox]>::from([]),
        );
        let origin = if plan.path.is_encap() { Origin::Vtep(PEER) } else { Origin::Port(NEIGHBOUR) };
        for station in 0..plan.stations {
            let id = NetworkId(u16::try_from(station % plan.networks)?);
            if let Some(network) = tables.network(id) {
                worker.pipeline.bridge.learn(id, network, mac(station), origin, Instant(1));
            }
        }
        // Whoever sends is known as well, in every network.
        let origin = if plan.path.is_decap() { Origin::Vtep(PEER) } else { Origin::Port(ACCESS) };
        for (id, network) in tables.networks() {
            worker.pipeline.bridge.learn(id, network, SENDER, origin, Instant(1));
        }
        let frames = frames(plan);
        let from = if plan.path.is_decap() { UPLINK } else { ACCESS };
        for port in [UPLINK, ACCESS, NEIGHBOUR] {
            worker.open(port, QueueId(0), receive(plan, frames.clone(), port == from), transmit())?;
        }
        Ok(Self { worker, now: Instant(2) })
    }

    /// One burst of [`DRY_BURST`] packets.
    #[inline(never)]
    pub fn burst_of_packets(&mut self) {
        self.worker.breathe(self.now);
    }

    /// Packets that left so far.
    pub fn transmitted(&mut self) -> u64 {
        self.worker.report().counters.transmitted
    }
}

fn tables(plan: &DryPlan) -> Result<Tables, Box<dyn std::error::Error>> {
    let mut tables = Tables::new(LOCAL);
    let owner = WorkerId(0);
    tables.set_port(UPLINK, Port::new(Role::Uplink, owner));
    // All packets come from one port: it is in the network that sends.
    for port in [ACCESS, NEIGHBOUR] {
        let addresses = vec![SENDER_ADDRESS.into()];
        let guard = (plan.path == Path::Guarded).then(|| Arc::new(Guard { mac: SENDER, addresses }));
        tables.set_port(port, Port { guard, ..Port::new(Role::Access(NetworkId(0)), owner) });
    }
    let peer = plan.path.address(REMOTE).ok_or("a VTEP of both families")?;
    tables.set_vtep(PEER, Vtep::new(LOCAL, peer, UPLINK, MAC[0], Some(MAC[1])));
    for network in 0..plan.networks {
        let vni = Vni::new(u32::try_from(network)? + 1)?;
        let (ports, peers) = (vec![ACCESS, NEIGHBOUR], vec![PEER]);
        let entry = Network { mac_limit: u32::MAX, ports, peers, ..Network::new(vni) };
        tables.set_network(NetworkId(u16::try_from(network)?), entry);
    }
    Ok(tables)
}

/// Different frames that a run goes through in turns, each a flow of its own.
const FRAMES: usize = 1024;

fn frames(plan: &DryPlan) -> Vec<Vec<u8>> {
    let to = plan.path.address(LOCAL).filter(|_| plan.path.is_decap());
    let template = to.and_then(|to| Template::new(REMOTE, MAC[1], to, MAC[0]));
    let vni = Vni::new(1).unwrap_or_default();
    let frame = |flow: usize| {
        let overlay = overlay(plan, flow);
        match &template {
            Some(template) => template.wrap(vni, Flow::default(), &overlay),
            None => overlay,
        }
    };
    (0..FRAMES).map(frame).collect()
}

/// A UDP packet in a frame of the planned length, its checksum in place.
fn overlay(plan: &DryPlan, flow: usize) -> Vec<u8> {
    let payload = vec![0x5a; plan.frame.saturating_sub(Ethernet::LEN + 28)];
    let port = 1024 + u16::try_from(flow).unwrap_or_default();
    let mut frame = Vec::with_capacity(plan.frame);
    let builder = etherparse::PacketBuilder::ethernet2(SENDER.0, MacAddr::BROADCAST.0)
        .ipv4(SENDER_ADDRESS.octets(), [10, 0, 0, 2], 64)
        .udp(port, 9);
    // Writing to a vector does not fail.
    let _ = builder.write(&mut frame, &payload);
    frame
}

fn mac(station: usize) -> MacAddr {
    MacAddr::from_u64(0x0200_0000_0000 + station as u64)
}
