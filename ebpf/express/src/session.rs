//! A packet of an established session of address translation: out of the overlay, or back in.

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::bpf_l4_csum_replace,
    programs::TcContext,
};
use vxlane_abi::express::{Event, SessionKey};

use crate::{
    frame::{Facts, IPV4, TCP, UDP, be16, copy, head, ip_sum, ne32},
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
    let mut key = SessionKey {
        ifindex: facts.ifindex,
        destination: [0; 6],
        source: [0; 6],
        addresses: [0; 8],
        ports: [0; 4],
        protocol: 0,
    };
    let header = read(ctx, &facts, end, &mut key).ok_or(Event::Miss)?;
    let protocol = key.protocol as u8;
    let session = SESSIONS.get_ptr_mut(&key).ok_or(Event::Miss)?;
    // SAFETY: the lookup has just returned `session`, of which `way` is a part.
    admit(unsafe { &raw mut (*session).way }, outside(), &facts)?;
    // SAFETY: the lookup has just returned `session`, which stays readable for this call. Should
    // user space replace it meanwhile, each field is still one that it wrote.
    let session = unsafe { &*session };
    let longest = if facts.segment == 0 { facts.length } else { header + facts.segment };
    if longest > session.way.longest {
        return Err(Event::Miss);
    }
    let mut front = [0u8; 38];
    copy(&session.ethernet, 0, first(&mut front));
    let before = front_of(ctx).ok_or(Event::Miss)?;
    let mut index = 12;
    while index < 38 {
        front[index] = before[index];
        index += 1;
    }
    // `read` has seen that more is left of its life.
    front[22] -= 1;
    let (address, port) = match end {
        End::Source => (26, 34),
        End::Destination => (30, 36),
    };
    let moved = (ne32(&front, address), ne16(&front, port));
    index = 0;
    while index < 4 {
        front[address + index] = session.address[index];
        index += 1;
    }
    (front[port], front[port + 1]) = (session.port[0], session.port[1]);
    let became = (ne32(&front, address), ne16(&front, port));
    (front[24], front[25]) = (0, 0);
    let [high, low] = (!ip_sum(&front)).to_be_bytes();
    (front[24], front[25]) = (high, low);
    let (ifindex, kind, from, to, place) =
        (session.way.ifindex, session.way.kind, session.way.from, session.way.to, session.place);
    correct(ctx, protocol, moved, became)?;
    // The frame is longer than that, and writable since its checksum was written: this cannot fail.
    if ctx.store(0, &front, 0).is_err() {
        count(Event::NoHeaders);
        return Ok(leave::DROP);
    }
    let (packets, repeated) = facts.on_the_wire(header);
    let bytes = facts.length + repeated;
    count_hit(from, to, packets, bytes, bytes);
    count_use(place, packets, be16(&front, 16) + repeated - (packets - 1) * 14);
    Ok(leave::send(ctx, ifindex, kind))
}

/// In the first byte of flags and offset.
const DONT_FRAGMENT: u8 = 0x40;

/// Reads what tells the session of a packet into `key`, and returns how many bytes come before the
/// payload. `None` for what is no plain segment or datagram in the middle of a session: the worker
/// sees to beginnings and ends, fragments, options, and to all that contradicts itself.
#[inline(always)]
fn read(ctx: &TcContext, facts: &Facts, end: End, key: &mut SessionKey) -> Option<u32> {
    let bytes = front_of(ctx)?;
    let (total, protocol) = (be16(bytes, 16), bytes[23]);
    let plain = be16(bytes, 12) == IPV4 && bytes[14] == 0x45 && be16(bytes, 20) & 0x3fff == 0;
    // What may be fragmented further on leaves with an identification that a worker gives it
    // (RFC 7857 section 10).
    let keeps_identification = end == End::Destination || bytes[20] & DONT_FRAGMENT != 0;
    if !plain || !keeps_identification || total + 14 > facts.length || bytes[22] <= 1 || ip_sum(bytes) != 0xffff {
        return None;
    }
    if end == End::Source {
        copy(bytes, 0, &mut key.destination);
        copy(bytes, 6, &mut key.source);
    }
    copy(bytes, 26, &mut key.addresses);
    copy(bytes, 34, &mut key.ports);
    key.protocol = u32::from(protocol);
    match protocol {
        TCP => {
            let bytes = head::<54>(ctx)?;
            let length = u32::from(bytes[46] >> 4) * 4;
            (length >= 20 && length + 20 <= total && bytes[47] & (FIN | SYN | RST) == 0).then_some(34 + length)
        }
        UDP => {
            let length = be16(head::<42>(ctx)?, 38);
            (length >= 8 && length + 20 <= total).then_some(42)
        }
        _ => None,
    }
}

/// Everything up to the ports, if there are no options.
#[inline(always)]
fn front_of(ctx: &TcContext) -> Option<&[u8; 38]> {
    head::<38>(ctx)
}

/// Changes the checksum of a segment or datagram by what has become of its address and port.
///
/// Where the device is still to compute it, it holds the sum of the pseudo header alone, of which
/// the address is a part and the port is not: the kernel knows.
#[inline(always)]
fn correct(ctx: &TcContext, protocol: u8, moved: (u32, u16), became: (u32, u16)) -> Result<(), Event> {
    let (at, mark) = match protocol {
        TCP => (50, 0),
        _ => (40, u64::from(BPF_F_MARK_MANGLED_0)),
    };
    let flags = mark | u64::from(BPF_F_PSEUDO_HDR) | 4;
    // SAFETY: the context is the one of this call; the others are numbers.
    let address = unsafe { bpf_l4_csum_replace(ctx.skb.skb, at, moved.0.into(), became.0.into(), flags) };
    // SAFETY: as above.
    let port = unsafe { bpf_l4_csum_replace(ctx.skb.skb, at, moved.1.into(), became.1.into(), mark | 2) };
    // Both fail or none: what can fail is making these bytes writable.
    if address != 0 || port != 0 { Err(Event::Miss) } else { Ok(()) }
}

/// The place of the two addresses of an Ethernet header.
#[inline(always)]
fn first(front: &mut [u8; 38]) -> &mut [u8; 12] {
    // SAFETY: the first twelve of more bytes, borrowed from those.
    unsafe { &mut *front.as_mut_ptr().cast() }
}

/// The two bytes at `at`, as they lie.
#[inline(always)]
fn ne16(bytes: &[u8; 38], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
