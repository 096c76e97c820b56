//! A packet of an established session of address translation: out of the overlay, or back in.

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{bpf_csum_update, bpf_l4_csum_replace},
    programs::TcContext,
};
use vxlane_abi::express::{Event, SessionKey};

use crate::{
    frame::{Facts, IPV4, IPV6, TCP, UDP, be16, copy, copy_mapped, head, ip_sum, ne32},
    leave,
    maps::{SESSIONS, admit, count, count_hit, count_use, outside},
};

/// The end of a packet that gets another address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Of a packet from an endpoint.
    Source,
    /// Of a packet from outside.
    Destination,
}

/// Translates the packet and sends it on, or says why a worker has to.
#[inline(always)]
pub fn forward(ctx: &TcContext, end: End) -> Result<i32, Event> {
    let facts = Facts::of(ctx);
    if facts.vlan {
        return Err(Event::Miss);
    }
    let mut packet = Packet {
        key: SessionKey {
            ifindex: facts.ifindex,
            destination: [0; 6],
            source: [0; 6],
            addresses: [[0; 16]; 2],
            ports: [[0; 2]; 2],
            protocol: 0,
        },
        headers: 0,
    };
    let bytes = head::<14>(ctx).ok_or(Event::Miss)?;
    if end == End::Source {
        copy(bytes, 0, &mut packet.key.destination);
        copy(bytes, 6, &mut packet.key.source);
    }
    match be16(bytes, 12) {
        IPV4 => {
            packet.read_v4(ctx, &facts, end).ok_or(Event::Miss)?;
            translate::<V4, FRONT_V4, 4>(ctx, &facts, end, &packet)
        }
        IPV6 => {
            packet.read_v6(ctx, &facts).ok_or(Event::Miss)?;
            translate::<V6, FRONT_V6, 16>(ctx, &facts, end, &packet)
        }
        _ => Err(Event::Miss),
    }
}

/// What is needed of a packet.
struct Packet {
    key: SessionKey,
    /// Bytes before the payload.
    headers: u32,
}

/// In the first byte of flags and offset.
const DONT_FRAGMENT: u8 = 0x40;

/// Each reads what tells the session of a packet, and where its payload begins. `None` for what is no
/// plain segment or datagram in the middle of a session: the worker sees to beginnings and ends,
/// fragments, options and extensions, and to all that contradicts itself. In place: there is little
/// room on the stack.
impl Packet {
    #[inline(always)]
    fn read_v4(&mut self, ctx: &TcContext, facts: &Facts, end: End) -> Option<()> {
        let bytes = head::<FRONT_V4>(ctx)?;
        let (total, protocol) = (be16(bytes, 16), bytes[23]);
        let plain = bytes[14] == 0x45 && be16(bytes, 20) & 0x3fff == 0;
        // What may be fragmented further on leaves with an identification that a worker gives it
        // (RFC 7857 section 10).
        let keeps_identification = end == End::Destination || bytes[20] & DONT_FRAGMENT != 0;
        if !plain || !keeps_identification || total + 14 > facts.length || bytes[22] <= 1 || ip_sum(bytes) != 0xffff {
            return None;
        }
        let [source, destination] = &mut self.key.addresses;
        copy_mapped(bytes, 26, source);
        copy_mapped(bytes, 30, destination);
        copy(bytes, 34, &mut self.key.ports[0]);
        copy(bytes, 36, &mut self.key.ports[1]);
        match protocol {
            TCP => self.read_tcp(head::<54>(ctx)?, 34, total.checked_sub(20)?),
            UDP => self.read_udp(head::<42>(ctx)?, 34, total.checked_sub(20)?),
            _ => None,
        }
    }

    #[inline(always)]
    fn read_v6(&mut self, ctx: &TcContext, facts: &Facts) -> Option<()> {
        let bytes = head::<FRONT_V6>(ctx)?;
        let (payload, protocol) = (be16(bytes, 18), bytes[20]);
        if bytes[14] >> 4 != 6 || payload + 54 > facts.length || bytes[21] <= 1 || is_summed(ctx) {
            return None;
        }
        copy(bytes, 22, &mut self.key.addresses[0]);
        copy(bytes, 38, &mut self.key.addresses[1]);
        copy(bytes, 54, &mut self.key.ports[0]);
        copy(bytes, 56, &mut self.key.ports[1]);
        match protocol {
            TCP => self.read_tcp(head::<74>(ctx)?, 54, payload),
            UDP => {
                let bytes = head::<62>(ctx)?;
                // Whether one may come without a checksum is for the worker to know (RFC 8200 section 8.1).
                if be16(bytes, 60) == 0 {
                    return None;
                }
                self.read_udp(bytes, 54, payload)
            }
            _ => None,
        }
    }

    /// Reads a segment, which begins at `at` and has `room` bytes.
    #[inline(always)]
    fn read_tcp<const N: usize>(&mut self, bytes: &[u8; N], at: usize, room: u32) -> Option<()> {
        let length = u32::from(bytes[at + 12] >> 4) * 4;
        self.key.protocol = u32::from(TCP);
        self.headers = at as u32 + length;
        (length >= 20 && length <= room && bytes[at + 13] & (FIN | SYN | RST) == 0).then_some(())
    }

    /// The same of a datagram.
    #[inline(always)]
    fn read_udp<const N: usize>(&mut self, bytes: &[u8; N], at: usize, room: u32) -> Option<()> {
        let length = be16(bytes, at + 4);
        self.key.protocol = u32::from(UDP);
        self.headers = at as u32 + 8;
        (length >= 8 && length <= room).then_some(())
    }
}

/// Bytes of a frame up to and with the ports.
const FRONT_V4: usize = 38;
const FRONT_V6: usize = 58;

/// A version of the internet protocol, in frames of which the first `FRONT` bytes end with the ports.
trait Version<const FRONT: usize> {
    /// Where the source address is; that of the destination follows.
    const SOURCE: usize;
    /// Where it says how many hops are left.
    const HOPS: usize;

    /// Finishes a header that was changed.
    fn finish(front: &mut [u8; FRONT]);

    /// The bytes of the packet, its header included.
    fn length(front: &[u8; FRONT]) -> u32;
}

struct V4;

impl Version<FRONT_V4> for V4 {
    const SOURCE: usize = 26;
    const HOPS: usize = 22;

    #[inline(always)]
    fn finish(front: &mut [u8; FRONT_V4]) {
        (front[24], front[25]) = (0, 0);
        let [high, low] = (!ip_sum(front)).to_be_bytes();
        (front[24], front[25]) = (high, low);
    }

    #[inline(always)]
    fn length(front: &[u8; FRONT_V4]) -> u32 {
        be16(front, 16)
    }
}

struct V6;

impl Version<FRONT_V6> for V6 {
    const SOURCE: usize = 22;
    const HOPS: usize = 21;

    #[inline(always)]
    fn finish(_: &mut [u8; FRONT_V6]) {}

    #[inline(always)]
    fn length(front: &[u8; FRONT_V6]) -> u32 {
        be16(front, 18) + 40
    }
}

/// Does what the session of `packet` says, with addresses of `ADDRESS` bytes.
#[inline(always)]
fn translate<V: Version<FRONT>, const FRONT: usize, const ADDRESS: usize>(
    ctx: &TcContext,
    facts: &Facts,
    end: End,
    packet: &Packet,
) -> Result<i32, Event> {
    let session = SESSIONS.get_ptr_mut(&packet.key).ok_or(Event::Miss)?;
    // SAFETY: the lookup has just returned `session`, of which `way` is a part.
    admit(unsafe { &raw mut (*session).way }, outside(), facts)?;
    // SAFETY: the lookup has just returned `session`, which stays readable for this call. Should
    // user space replace it meanwhile, each field is still one that it wrote.
    let session = unsafe { &*session };
    let longest = if facts.segment == 0 { facts.length } else { packet.headers + facts.segment };
    if longest > session.way.longest {
        return Err(Event::Miss);
    }
    let mut front = [0u8; FRONT];
    let before = head::<FRONT>(ctx).ok_or(Event::Miss)?;
    let mut index = 0;
    while index < 12 {
        front[index] = session.ethernet[index];
        index += 1;
    }
    while index < FRONT {
        front[index] = before[index];
        index += 1;
    }
    // Whoever read the packet has seen that more is left of its life.
    front[V::HOPS] -= 1;
    let (address, port) = match end {
        End::Source => (V::SOURCE, FRONT - 4),
        End::Destination => (V::SOURCE + ADDRESS, FRONT - 2),
    };
    // Those of IPv4 are the last bytes of what they are mapped to.
    let mapped = 16 - ADDRESS;
    let mut change = 0;
    index = 0;
    while index < ADDRESS {
        // What that changes in a sum of words (RFC 1624): 32 bits at a time, as `bpf_csum_diff` has it.
        change += u64::from(!ne32(&front, address + index)) + u64::from(ne32(&session.address, mapped + index));
        index += 4;
    }
    index = 0;
    while index < ADDRESS {
        front[address + index] = session.address[mapped + index];
        index += 1;
    }
    let moved = ne16(&front, port);
    (front[port], front[port + 1]) = (session.port[0], session.port[1]);
    let became = ne16(&front, port);
    V::finish(&mut front);
    let (ifindex, kind, from, to, place) =
        (session.way.ifindex, session.way.kind, session.way.from, session.way.to, session.place);
    correct(ctx, FRONT - 4, packet.key.protocol as u8, change, (moved, became))?;
    // The frame is longer than that, and writable since its checksum was written: this cannot fail.
    if ctx.store(0, &front, 0).is_err() {
        count(Event::NoHeaders);
        return Ok(leave::DROP);
    }
    let (packets, repeated) = facts.on_the_wire(packet.headers);
    let bytes = facts.length + repeated;
    count_hit(from, to, packets, bytes, bytes);
    count_use(place, packets, V::length(&front) + repeated - (packets - 1) * 14);
    Ok(leave::send(ctx, ifindex, kind))
}

/// Changes the checksum of a segment or datagram, which begins at `transport`, by the `change` of its
/// address and by what has become of its port.
///
/// Where the device is still to compute it, it holds the sum of the pseudo header alone, of which
/// the address is a part and the port is not: the kernel knows.
#[inline(always)]
fn correct(ctx: &TcContext, transport: usize, protocol: u8, change: u64, port: (u16, u16)) -> Result<(), Event> {
    let (at, mark) = match protocol {
        TCP => (transport as u32 + 16, 0),
        _ => (transport as u32 + 6, u64::from(BPF_F_MARK_MANGLED_0)),
    };
    let change = (change & 0xffff_ffff) + (change >> 32);
    let change = (change & 0xffff_ffff) + (change >> 32);
    // SAFETY: the context is the one of this call; the others are numbers.
    let address = unsafe { bpf_l4_csum_replace(ctx.skb.skb, at, 0, change, mark | u64::from(BPF_F_PSEUDO_HDR)) };
    // SAFETY: as above.
    let port = unsafe { bpf_l4_csum_replace(ctx.skb.skb, at, port.0.into(), port.1.into(), mark | 2) };
    // Both fail or none: what can fail is making these bytes writable.
    if address != 0 || port != 0 { Err(Event::Miss) } else { Ok(()) }
}

/// Whether the device has told the sum of all of the frame. The kernel would have to change that
/// with the hops, which IPv6 has no checksum of its own to make up for, and does not.
#[inline(always)]
fn is_summed(ctx: &TcContext) -> bool {
    // SAFETY: the context is the one of this call; the other is a number. It fails if there is no such sum.
    unsafe { bpf_csum_update(ctx.skb.skb, 0) >= 0 }
}

/// The two bytes at `at`, as they lie.
#[inline(always)]
fn ne16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
