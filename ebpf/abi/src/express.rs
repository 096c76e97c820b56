//! What the TC programs of the express lane and the user side agree on.
//!
//! Workers write flows into the maps; the programs repeat for each packet what the flow says, and
//! send whatever has none to a worker. A flow is good while the epoch of its network is the one
//! that it was made in, and until it expires.

/// The program on the host's end of an endpoint's veth pair.
pub const ACCESS_PROGRAM: &str = "express_access";
/// The program on the uplink.
pub const UPLINK_PROGRAM: &str = "express_uplink";
/// The program on the workers' end of the punt pair, for what workers send.
pub const EXIT_PROGRAM: &str = "express_exit";

/// Names of the maps, as the object exports them, beside those that say which frames of an uplink
/// are ours: as in the steering program's object.
pub mod maps {
    /// `HashMap<FlowKey, Encap>`: frames of endpoints.
    pub const FLOWS: &str = "FLOWS";
    /// `HashMap<TunnelKey, Way>`: frames from other VTEPs.
    pub const TUNNELS: &str = "TUNNELS";
    /// `HashMap<SessionKey, Rewrite>`: packets of sessions of address translation.
    pub const SESSIONS: &str = "SESSIONS";
    /// `Array<Use>` that can be mapped, by [`Rewrite::place`](super::Rewrite::place).
    pub const USES: &str = "USES";
    /// `Array<u64>` that can be mapped, by network: the epoch that its flows must be of; the last,
    /// [`OUTSIDE`](super::OUTSIDE), is that of what lies outside of all networks. The kernel gives
    /// every value of an array eight bytes, so shorter ones would not lie side by side.
    pub const EPOCHS: &str = "EPOCHS";
    /// `HashMap<u32, u32>`: the tag of an interface, by its index.
    pub const TAGS: &str = "TAGS";
    /// `Array<Exit>`, by tag: where frames from workers leave.
    pub const EXITS: &str = "EXITS";
    /// `Array<Setup>` of one.
    pub const SETUP: &str = "SETUP";
    /// `Array<u64>` of one that can be mapped: when a worker was last there, on the clock of
    /// [`Way::expires`](super::Way::expires).
    pub const BEAT: &str = "BEAT";
    /// `PerCpuArray<PortCounts>`, by tag.
    pub const PORT_COUNTS: &str = "PORT_COUNTS";
    /// `PerCpuArray<u64>`, indexed by [`Event`](super::Event).
    pub const EVENTS: &str = "EVENTS";
}

/// How many flows of each kind there can be.
pub const MAX_FLOWS: u32 = 32_768;
/// Tags are port numbers, and these are below this.
pub const MAX_TAGS: u32 = 4096;
/// Networks have numbers below this.
pub const MAX_NETWORKS: u32 = 65_536;

/// The place in the map of epochs that stands for what lies outside: routes, their next hops, and
/// those hops' addresses.
pub const OUTSIDE: u32 = MAX_NETWORKS;

/// Bytes of the outer headers over IPv4.
pub const OVERHEAD: usize = 50;
/// Bytes of the outer headers over IPv6.
pub const OVERHEAD_V6: usize = 70;

/// Which frames of endpoints belong to one flow. The addresses are as on the wire.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Where it comes in.
    pub ifindex: u32,
    /// To this MAC address.
    pub destination: [u8; 6],
    /// From this one.
    pub source: [u8; 6],
    /// From this IP address; of IPv4 the first four bytes, and zeros.
    pub address: [u8; 16],
}

/// Which frames of other VTEPs belong to one flow. The addresses are as on the wire.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TunnelKey {
    /// The three bytes of the VNI, and zero.
    pub vni: [u8; 4],
    /// The VTEP; of IPv4 as IPv6 has it mapped (RFC 4291 section 2.5.5.2).
    pub vtep: [u8; 16],
    /// To this MAC address.
    pub destination: [u8; 6],
    /// From this one.
    pub source: [u8; 6],
}

/// How long after the last [`maps::BEAT`] workers are still taken to be there, in nanoseconds.
/// They beat ten times a second.
pub const ABSENT: u64 = 2_000_000_000;

/// Which packets belong to one session, on one of its two ways. The addresses are as on the wire.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// Where it comes in.
    pub ifindex: u32,
    /// To this MAC address: the gateway's. Zeros on the uplink.
    pub destination: [u8; 6],
    /// From this one: the endpoint's. Zeros on the uplink.
    pub source: [u8; 6],
    /// Source and destination IP address, those of IPv4 as IPv6 has them mapped (RFC 4291 section 2.5.5.2).
    pub addresses: [[u8; 16]; 2],
    /// Source and destination port.
    pub ports: [[u8; 2]; 2],
    /// TCP or UDP, as in an IP header.
    pub protocol: u32,
}

/// The frame is sent by the interface.
pub const KIND_SEND: u16 = 1;
/// The interface is a veth whose other end is in another namespace: the frame arrives there.
pub const KIND_PEER: u16 = 2;
/// The frame is encapsulated, and sent by the interface.
pub const KIND_TUNNEL: u16 = 3;
/// The same over IPv6, without a UDP checksum.
pub const KIND_TUNNEL_V6: u16 = 4;

/// Where the frames of a flow go, and for how long that is good.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// On the monotonic clock, in nanoseconds. From then on a worker decides, if one is there.
    pub expires: u64,
    /// From then on one frame goes to a worker, which confirms the flow; one that the kernel is
    /// still to segment only from the middle between this and [`expires`](Self::expires) on. The
    /// program sets this to [`u64::MAX`] when it sends that frame.
    pub confirm: u64,
    /// When the first of its two stations is forgotten unless it is heard of again. So long is
    /// the flow good while no worker is there to confirm it.
    pub ages: u64,
    /// The epoch of the network in which this was decided.
    pub epoch: u32,
    /// The network.
    pub network: u32,
    /// The interface.
    pub ifindex: u32,
    /// The longest frame that may pass, in bytes.
    pub longest: u32,
    /// One of the `KIND`s.
    pub kind: u16,
    /// The worker that has decided.
    pub worker: u16,
    /// The tag of the port where the frames come in.
    pub from: u16,
    /// The tag of the port where they leave.
    pub to: u16,
}

/// A [`Way`] with the headers that frames get, where they get any.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encap {
    /// Where to.
    pub way: Way,
    /// Sum of the words of the outer IPv4 header while its length, traffic class and checksum are
    /// zero: below 2^20.
    pub ip_sum: u32,
    /// The outer headers, of IPv4 the first [`OVERHEAD`] bytes, with the fields above, the flow label,
    /// and the UDP source port and length zero.
    pub headers: [u8; OVERHEAD_V6],
    /// Zero. Keeps the value free of padding, so that every byte of it is defined.
    pub reserved: [u8; 6],
}

/// A [`Way`], whose epoch is that of the network and [`OUTSIDE`]'s together, with what becomes of a
/// packet: the source end of one from an endpoint is replaced, the
/// destination end of one from outside.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Where to.
    pub way: Way,
    /// Where its use is noted.
    pub place: u32,
    /// Destination and source MAC address that the frame gets.
    pub ethernet: [u8; 12],
    /// The IP address that the end gets; of IPv4 as in the key.
    pub address: [u8; 16],
    /// The port that it gets.
    pub port: [u8; 2],
    /// Zero. Keeps the value free of padding, so that every byte of it is defined.
    pub reserved: [u8; 6],
}

/// What has become of a [`Rewrite`], as far as programs know.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// When last, on the monotonic clock, in nanoseconds; 0 for never.
    pub last: u64,
    /// By how many packets, as they are on the wire.
    pub packets: u64,
    /// Their bytes, IP headers included.
    pub bytes: u64,
}

/// Where frames from workers leave.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// The interface; 0 if the tag is not in use.
    pub ifindex: u32,
    /// [`KIND_SEND`] or [`KIND_PEER`].
    pub kind: u16,
    /// Zero. Keeps the value free of padding, so that every byte of it is defined.
    pub reserved: u16,
}

/// What all programs need.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// The interface that leads to the workers.
    pub punt: u32,
    /// How many queues it has.
    pub queues: u32,
}

/// What passed one port in this lane. A frame that the kernel segments later counts as the frames
/// that it is segmented into, each with headers of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounts {
    /// Frames that came in here, and took the express lane.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames that left here.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
}

/// What became of a frame that a program saw.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It took the express lane.
    Hit = 0,
    /// It went to a worker: no flow, or not one for this lane.
    Miss = 1,
    /// It went to a worker, which shall confirm its flow.
    Confirm = 2,
    /// It went to a worker: its flow is of an earlier epoch, or has expired.
    Stale = 3,
    /// On an uplink, neither VXLAN to our VTEP nor to a lent port: left to the host.
    Passed = 4,
    /// From a worker, and sent on.
    Sent = 5,
    /// From a worker, for a port that is gone: dropped.
    NoExit = 6,
    /// The kernel had no memory to give it a tag: dropped.
    NoTag = 7,
    /// It took the express lane, counted as [`PortCounts`] are.
    Carried = 8,
    /// It was to take the express lane, and the kernel did not let its headers be written: dropped.
    NoHeaders = 9,
}

/// Number of [`Event`]s.
pub const EVENTS: u32 = 10;

/// The outer source port of a flow: part of `vtep::entropy` that both sides share.
pub mod entropy {
    /// The first dynamic port (RFC 6335 section 6).
    pub const FIRST_PORT: u16 = 49152;
    const PORT_MASK: u64 = 0x3fff;
    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The port of a flow between `addresses`, whose words have been [folded](fold); `ports` are
    /// the four bytes of source and destination port as they lie on the wire, 0 if it has none.
    #[inline(always)]
    pub fn source_port(addresses: u64, protocol: u8, ports: u32) -> u16 {
        let hash = mix(addresses ^ SEED, ((ports as u64) << 8 | protocol as u64) ^ SEED.rotate_left(32));
        FIRST_PORT | (hash & PORT_MASK) as u16
    }

    /// The IPv6 flow label of a packet with this source port: routers that hash addresses and label
    /// alone spread flows as well (RFC 6438 section 3). Never zero, which would say that there is
    /// none, and different for every dynamic port.
    #[inline(always)]
    pub fn flow_label(source_port: u16) -> u32 {
        // Multiples of the golden ratio keep clear of each other (Knuth, 6.4).
        (source_port as u32).wrapping_mul(0x9e37_79b1) >> 12
    }

    /// Adds one more word to the words before it.
    #[inline(always)]
    pub fn fold(hash: u64, word: u64) -> u64 {
        mix(hash, SEED) ^ word
    }

    /// Multiplies and folds the 128-bit product: every input bit reaches every output bit.
    ///
    /// In halves, because the programs have no wider multiplication; the compiler must not notice
    /// that it is one, or it makes it a call that they do not have either.
    #[inline(always)]
    pub fn mix(left: u64, right: u64) -> u64 {
        const LOW: u64 = 0xffff_ffff;
        let (a, b) = (left >> 32, left & LOW);
        let (c, d) = (right >> 32, right & LOW);
        let (low, first, second) = (b * d, core::hint::black_box(a * d), b * c);
        let middle = (low >> 32) + (first & LOW) + (second & LOW);
        let high = a * c + (first >> 32) + (second >> 32) + (middle >> 32);
        (middle << 32 | low & LOW) ^ high
    }
}

#[cfg(feature = "user")]
mod user {
    //! What lets aya copy the keys and values of our maps.
    #![expect(unsafe_code, reason = "aya copies map values as bytes and asks for this promise")]

    use super::{Encap, Exit, FlowKey, PortCounts, Rewrite, SessionKey, Setup, TunnelKey, Way};

    // SAFETY: `repr(C)` of a `u32` and byte arrays, 32 bytes in all, a multiple of four: no
    // padding, every bit pattern is a value, no pointers.
    unsafe impl aya::Pod for FlowKey {}

    // SAFETY: `repr(C)` of byte arrays: no padding, every bit pattern is a value, no pointers.
    unsafe impl aya::Pod for TunnelKey {}

    // SAFETY: `repr(C)` of two `u32` and 48 bytes, 56 bytes in all, a multiple of four: no padding,
    // every bit pattern is a value, no pointers.
    unsafe impl aya::Pod for SessionKey {}

    // SAFETY: `repr(C)` of three `u64`, four `u32` and four `u16`, 48 bytes in all, a multiple of
    // eight: no padding, every bit pattern is a value, no pointers.
    unsafe impl aya::Pod for Way {}

    // SAFETY: `repr(C)` of a `Way`, a `u32` and 76 bytes, 128 bytes in all, a multiple of eight:
    // no padding, every bit pattern is a value, no pointers.
    unsafe impl aya::Pod for Encap {}

    // SAFETY: `repr(C)` of a `Way`, a `u32` and 36 bytes, 88 bytes in all, a multiple of eight: no
    // padding, every bit pattern is a value, no pointers.
    unsafe impl aya::Pod for Rewrite {}

    // SAFETY: `repr(C)` of a `u32` and two `u16`: no padding, every bit pattern is a value, no
    // pointers.
    unsafe impl aya::Pod for Exit {}

    // SAFETY: `repr(C)` of two `u32`: no padding, every bit pattern is a value, no pointers.
    unsafe impl aya::Pod for Setup {}

    // SAFETY: `repr(C)` of four `u64`: no padding, every bit pattern is a value, no pointers.
    unsafe impl aya::Pod for PortCounts {}
}
