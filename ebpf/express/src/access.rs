//! A frame from an endpoint: to another endpoint of this host, or into a tunnel.

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
        BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::generated::{bpf_redirect, bpf_skb_adjust_room},
    programs::TcContext,
};
use vxlane_abi::express::{Encap, Event, FlowKey, KIND_TUNNEL, KIND_TUNNEL_V6, OVERHEAD, OVERHEAD_V6, entropy};

use crate::{
    frame::{Facts, ICMPV6, IPV4, IPV6, TCP, UDP, be16, copy, fold, head, headers, is_echo, ne32, word},
    leave,
    maps::{FLOWS, admit, count, count_hit},
};

/// Forwards the frame, or says why a worker has to.
#[inline(always)]
pub fn forward(ctx: &TcContext) -> Result<i32, Event> {
    let facts = Facts::of(ctx);
    if facts.vlan {
        return Err(Event::Miss);
    }
    let mut packet = Packet::EMPTY;
    packet.read(ctx, &facts).ok_or(Event::Miss)?;
    let flow = FLOWS.get_ptr_mut(&packet.key).ok_or(Event::Miss)?;
    // SAFETY: the lookup has just returned `flow`, of which `way` is a part.
    let way = unsafe { &raw mut (*flow).way };
    admit(way, 0, &facts)?;
    // SAFETY: as above.
    let (longest, kind, ifindex, from, to) =
        unsafe { ((*way).longest, (*way).kind, (*way).ifindex, (*way).from, (*way).to) };
    if packet.longest(&facts) > longest {
        return Err(Event::Miss);
    }
    match kind {
        KIND_TUNNEL => return encap_v4(ctx, flow, &facts, &packet),
        KIND_TUNNEL_V6 => return encap_v6(ctx, flow, &facts, &packet),
        _ => {}
    }
    let (packets, repeated) = facts.on_the_wire(packet.headers);
    let bytes = facts.length + repeated;
    count_hit(from, to, packets, bytes, bytes);
    Ok(leave::send(ctx, ifindex, kind))
}

/// What is needed of a packet.
struct Packet {
    key: FlowKey,
    ether_type: u16,
    /// Outer UDP source port.
    source_port: u16,
    /// Congestion mark.
    ecn: u8,
    /// Bytes of headers that each frame has which it will be segmented into; unknown if it will not.
    headers: u32,
}

impl Packet {
    const EMPTY: Self = Self {
        key: FlowKey { ifindex: 0, destination: [0; 6], source: [0; 6], address: [0; 16] },
        ether_type: 0,
        source_port: 0,
        ecn: 0,
        headers: 0,
    };

    /// The length of the longest frame that it is on the wire.
    #[inline(always)]
    fn longest(&self, facts: &Facts) -> u32 {
        if facts.segment == 0 { facts.length } else { self.headers + facts.segment }
    }

    /// Reads a packet of IPv4 without options, or of IPv6 without extensions. In place: there is
    /// little room on the stack.
    #[inline(always)]
    fn read(&mut self, ctx: &TcContext, facts: &Facts) -> Option<()> {
        let bytes = head::<14>(ctx)?;
        self.key.ifindex = facts.ifindex;
        copy(bytes, 0, &mut self.key.destination);
        copy(bytes, 6, &mut self.key.source);
        self.ether_type = be16(bytes, 12) as u16;
        match u32::from(self.ether_type) {
            IPV4 => self.read_v4(ctx, facts),
            IPV6 => self.read_v6(ctx, facts),
            _ => None,
        }
    }

    #[inline(always)]
    fn read_v4(&mut self, ctx: &TcContext, facts: &Facts) -> Option<()> {
        let bytes = head::<38>(ctx)?;
        let total = be16(bytes, 16);
        if bytes[14] != 0x45 || total < 20 || total + 14 > facts.length {
            return None;
        }
        self.ecn = bytes[15] & 3;
        copy::<38, 4>(bytes, 26, first(&mut self.key.address));
        let whole = be16(bytes, 20) & 0x3fff == 0;
        let protocol = if whole { bytes[23] } else { 0 };
        let has_ports = (protocol == TCP || protocol == UDP) && total >= 28;
        let ports = if has_ports { ne32(bytes, 34) } else { 0 };
        if protocol == UDP && ports == DHCP_REPLY {
            return None;
        }
        self.source_port = entropy::source_port(word(bytes, 26), protocol, ports);
        self.headers = headers(ctx, facts, protocol, 34)?;
        Some(())
    }

    #[inline(always)]
    fn read_v6(&mut self, ctx: &TcContext, facts: &Facts) -> Option<()> {
        let bytes = head::<58>(ctx)?;
        let payload = be16(bytes, 18);
        let protocol = bytes[20];
        if bytes[14] >> 4 != 6 || payload + 54 > facts.length {
            return None;
        }
        let ports = match protocol {
            UDP if ne32(bytes, 54) == DHCPV6_REPLY => return None,
            TCP | UDP if payload >= 8 => ne32(bytes, 54),
            TCP | UDP => 0,
            ICMPV6 if is_echo(bytes[54]) => 0,
            _ => return None,
        };
        self.ecn = bytes[15] >> 4 & 3;
        copy(bytes, 22, &mut self.key.address);
        let mut addresses = word(bytes, 22);
        addresses = entropy::fold(addresses, word(bytes, 30));
        addresses = entropy::fold(addresses, word(bytes, 38));
        addresses = entropy::fold(addresses, word(bytes, 46));
        self.source_port = entropy::source_port(addresses, protocol, ports);
        self.headers = headers(ctx, facts, protocol, 54)?;
        Some(())
    }
}

/// The place of an IPv4 address among the bytes of a longer one.
#[inline(always)]
fn first(address: &mut [u8; 16]) -> &mut [u8; 4] {
    // SAFETY: the first four of sixteen bytes, borrowed from those.
    unsafe { &mut *address.as_mut_ptr().cast() }
}

/// Puts a tunnel over IPv4 on, and sends the frame by the uplink.
#[inline(always)]
fn encap_v4(ctx: &TcContext, flow: *const Encap, facts: &Facts, packet: &Packet) -> Result<i32, Event> {
    let ip_length = facts.length + 36;
    if ip_length > 65_535 {
        return Err(Event::Miss);
    }
    let mut outer = [0u8; OVERHEAD + 14];
    fill(&mut outer, OVERHEAD, flow, packet);
    // SAFETY: the caller has looked `flow` up in this call.
    let sum = !fold(unsafe { (*flow).ip_sum } + ip_length + u32::from(packet.ecn));
    outer[15] = packet.ecn;
    put(&mut outer, 16, ip_length as u16);
    put(&mut outer, 24, sum);
    put(&mut outer, 34, packet.source_port);
    put(&mut outer, 38, (ip_length - 20) as u16);
    send(ctx, flow, facts, packet, &outer, GROW | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64)
}

/// The same over IPv6.
#[inline(always)]
fn encap_v6(ctx: &TcContext, flow: *const Encap, facts: &Facts, packet: &Packet) -> Result<i32, Event> {
    let udp_length = facts.length + 16;
    if udp_length > 65_535 {
        return Err(Event::Miss);
    }
    let mut outer = [0u8; OVERHEAD_V6 + 14];
    fill(&mut outer, OVERHEAD_V6, flow, packet);
    let label = entropy::flow_label(packet.source_port);
    outer[15] = packet.ecn << 4 | (label >> 16) as u8;
    put(&mut outer, 16, label as u16);
    put(&mut outer, 18, udp_length as u16);
    put(&mut outer, 54, packet.source_port);
    put(&mut outer, 58, udp_length as u16);
    send(ctx, flow, facts, packet, &outer, GROW | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 as u64)
}

/// Writes what all frames of a flow have in front: `overhead` bytes of outer headers, which are all
/// but 14 of `N`, and the inner Ethernet header.
#[inline(always)]
fn fill<const N: usize>(outer: &mut [u8; N], overhead: usize, flow: *const Encap, packet: &Packet) {
    // SAFETY: the caller's caller has looked `flow` up in this call.
    let headers = unsafe { &(*flow).headers };
    let mut index = 0;
    while index < overhead {
        outer[index] = headers[index];
        index += 1;
    }
    index = 0;
    while index < 6 {
        outer[overhead + index] = packet.key.destination[index];
        outer[overhead + 6 + index] = packet.key.source[index];
        index += 1;
    }
    put(outer, overhead + 12, packet.ether_type);
}

/// Puts `outer` in the place of the Ethernet header, and sends the frame by the uplink.
#[inline(always)]
fn send<const N: usize>(
    ctx: &TcContext,
    flow: *const Encap,
    facts: &Facts,
    packet: &Packet,
    outer: &[u8; N],
    grow: u64,
) -> Result<i32, Event> {
    // SAFETY: as in `fill`.
    let (ifindex, from, to) = unsafe { ((*flow).way.ifindex, (*flow).way.from, (*flow).way.to) };
    let overhead = N as u32 - 14;
    // SAFETY: the context is the one of this call; the others are numbers.
    if unsafe { bpf_skb_adjust_room(ctx.skb.skb, overhead as i32, BPF_ADJ_ROOM_MAC, grow) } != 0 {
        return Err(Event::Miss);
    }
    // The frame has just been made that long, in one place and writable: this cannot fail.
    if ctx.store(0, outer, 0).is_err() {
        count(Event::NoHeaders);
        return Ok(leave::DROP);
    }
    let (packets, repeated) = facts.on_the_wire(packet.headers);
    let received = facts.length + repeated;
    count_hit(from, to, packets, received, received + overhead * packets);
    // SAFETY: the helper takes numbers, and checks them.
    Ok(unsafe { bpf_redirect(ifindex, 0) as i32 })
}

#[inline(always)]
fn put<const N: usize>(bytes: &mut [u8; N], at: usize, value: u16) {
    let [high, low] = value.to_be_bytes();
    (bytes[at], bytes[at + 1]) = (high, low);
}

/// From the port of DHCP servers to that of clients: workers ask whether this one may be a server.
const DHCP_REPLY: u32 = (67 << 16 | 68_u32).to_be();
const DHCPV6_REPLY: u32 = (547 << 16 | 546_u32).to_be();
/// The frame grows by outer headers with an Ethernet frame inside; what it will be segmented
/// into stays as it is.
const GROW: u64 =
    (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2_ETH) as u64 | 14 << 56;
