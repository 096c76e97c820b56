//! What the BPF programs and the user side agree on: map names, keys, values, counters.
//!
//! The compiled program is checked in, so a change here is a change of that object too:
//! run `cargo xtask ebpf` and commit both.
#![no_std]

pub mod express;
pub mod uplink;

/// The name of the steering program inside its object.
pub const STEER_PROGRAM: &str = "steer";

/// Names of the maps, as the object exports them.
pub mod maps {
    /// `HashMap<u32, PortSteer>`: what to do with frames of an interface, by interface index.
    pub const PORTS: &str = "PORTS";
    /// `XskMap`: the sockets. A port owns the slots `first_slot .. first_slot + queues`.
    pub const XSKS: &str = "XSKS";
    /// `Array<VtepAddress>` of one: where our VXLAN is addressed to.
    pub const VTEP: &str = "VTEP";
    /// `Array<Vtep6Address>` of one: where our VXLAN is addressed to over IPv6.
    pub const VTEP6: &str = "VTEP6";
    /// `Array<u64>` of [`LEASE_WORDS`](crate::LEASE_WORDS), mapped by the user side: one bit for
    /// each TCP port, UDP port and ICMP identifier that address translation has lent.
    pub const LEASES: &str = "LEASES";
    /// `LruHashMap<Datagram, u8>`: datagrams to lent ports of which more fragments will come.
    pub const DATAGRAMS: &str = "DATAGRAMS";
    /// `Array<Outside6>` of one: where what is lent, and what is routed, of IPv6 is addressed to.
    pub const OUTSIDE6: &str = "OUTSIDE6";
    /// `LpmTrie<[u8; 16], u8>`: prefixes of IPv6 whose packets are ours.
    pub const PREFIXES6: &str = "PREFIXES6";
    /// `LruHashMap<Datagram6, u8>`: as `DATAGRAMS`, of IPv6.
    pub const DATAGRAMS6: &str = "DATAGRAMS6";
    /// `PerCpuArray<u64>`, indexed by [`Counter`](crate::Counter).
    pub const COUNTERS: &str = "COUNTERS";
}

/// How many interfaces one program instance can serve.
pub const MAX_PORTS: u32 = 1024;

/// How many sockets, over all ports and queues, one program instance can feed.
pub const MAX_SLOTS: u32 = 4096;

/// Words of the map of leases: 65,536 bits for each of [`LEASE_TCP`], [`LEASE_UDP`], [`LEASE_ICMP`],
/// of IPv4 and then, from [`LEASE_V6`] on, of IPv6.
pub const LEASE_WORDS: u32 = 6 << 10;

/// The first bit of TCP ports.
pub const LEASE_TCP: u32 = 0;

/// The first bit of UDP ports.
pub const LEASE_UDP: u32 = 1 << 16;

/// The first bit of identifiers of ICMP queries.
pub const LEASE_ICMP: u32 = 2 << 16;

/// The first bit of IPv6, which has its own of all of them.
pub const LEASE_V6: u32 = 3 << 16;

/// How many prefixes of IPv6 can be ours.
pub const MAX_PREFIXES: u32 = 65_536;

/// How many fragmented datagrams to lent ports can be under way at once; the eldest is forgotten.
pub const MAX_DATAGRAMS: u32 = 1024;

/// [`PortSteer::role`] of an underlay port: only VXLAN to our VTEP, and what answers or calls a
/// lent port at its address, is ours.
pub const ROLE_UPLINK: u32 = 1;

/// [`PortSteer::role`] of an overlay port: every frame is ours.
pub const ROLE_ACCESS: u32 = 2;

/// [`PortSteer::role`] of the workers' end of the express lane: every frame is ours, and none is
/// for the host, also while no worker is there.
pub const ROLE_LANE: u32 = 3;

/// How the frames of one interface are steered.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSteer {
    /// One of the `ROLE`s; frames of any other role pass to the host.
    pub role: u32,
    /// The slot of receive queue 0; the other queues follow.
    pub first_slot: u32,
    /// How many slots belong to this port. Frames of a queue beyond them pass to the host.
    pub queues: u32,
}

/// The outer destination that marks a datagram as ours. All zero, as a map begins, matches none.
/// With port zero no VXLAN is ours, and the address is that of lent ports alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VtepAddress {
    /// IPv4 address, in the order of the wire.
    pub address: [u8; 4],
    /// UDP port, in the order of the wire.
    pub port: [u8; 2],
    /// Zero. Keeps the value free of padding, so that every byte of it is defined.
    pub reserved: [u8; 2],
}

/// The outer destination that marks a datagram over IPv6 as ours. All zero, as a map begins,
/// matches none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vtep6Address {
    /// IPv6 address, in the order of the wire.
    pub address: [u8; 16],
    /// UDP port, in the order of the wire.
    pub port: [u8; 2],
    /// Zero. Keeps the value free of padding, so that every byte of it is defined.
    pub reserved: [u8; 6],
}

/// What the fragments of one datagram to our address have in common.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Source address, in the order of the wire.
    pub source: u32,
    /// Identification, in the order of the wire.
    pub identification: u16,
    /// Protocol number; 16 bits, so that the key is free of padding.
    pub protocol: u16,
}

/// The IPv6 address at which ports are lent. All zero, as a map begins, nothing is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outside6 {
    /// The address, in the order of the wire.
    pub address: [u8; 16],
    /// How many prefixes are ours; with none they need not be searched.
    pub prefixes: u32,
}

/// What the fragments of one datagram to [`Outside6::address`] have in common.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram6 {
    /// Source address.
    pub source: [u8; 16],
    /// Identification, in the order of the wire.
    pub identification: u32,
}

/// What became of a frame; each frame counts in exactly one.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Handed to a socket. The kernel may still drop it there: see the socket's own statistics.
    Redirected = 0,
    /// Ours, but nobody listens on that queue: passed.
    NoSocket = 1,
    /// On an uplink, neither VXLAN to our VTEP nor to a lent port: passed.
    NotVxlan = 2,
    /// On an uplink, a fragment of UDP to our address; the host reassembles those: passed.
    Fragment = 3,
    /// From an interface that is in no map, or has an unknown role: passed.
    UnknownPort = 4,
    /// From the express lane, and nobody listens on that queue: dropped.
    NoWorker = 5,
}

/// Number of [`Counter`]s.
pub const COUNTERS: u32 = 6;

#[cfg(feature = "user")]
mod user {
    //! What lets aya copy the values of our maps.
    #![expect(unsafe_code, reason = "aya copies map values as bytes and asks for this promise")]

    use super::{Outside6, PortSteer, Vtep6Address, VtepAddress};

    // SAFETY: `repr(C)` of three `u32`: no padding, every bit pattern is a value, no pointers.
    unsafe impl aya::Pod for PortSteer {}

    // SAFETY: `repr(C)` of byte arrays, eight bytes in all: no padding, every bit pattern is a
    // value, no pointers.
    unsafe impl aya::Pod for VtepAddress {}

    // SAFETY: as for `VtepAddress`, of twenty-four bytes.
    unsafe impl aya::Pod for Vtep6Address {}

    // SAFETY: `repr(C)` of sixteen bytes and a `u32` behind them: no padding, every bit pattern is
    // a value, no pointers.
    unsafe impl aya::Pod for Outside6 {}
}
