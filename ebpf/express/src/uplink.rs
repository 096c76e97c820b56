//! A frame from another VTEP, for an endpoint of this host.

use aya_ebpf::{
    bindings::{
        BPF_CSUM_LEVEL_QUERY, BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_FIXED_GSO,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::generated::{bpf_csum_level, bpf_skb_adjust_room},
    programs::TcContext,
};
use vxlane_abi::{
    express::{Event, OVERHEAD, OVERHEAD_V6, TunnelKey},
    uplink::Class,
};

use crate::{
    frame::{Facts, ICMPV6, IPV4, IPV6, TCP, UDP, be16, copy, copy_mapped, head, headers, ip_sum, is_echo, part},
    leave,
    maps::{TUNNELS, admit, count, count_hit},
    ours::{self, Bytes},
};

/// The frame that the program was called for, before anything of it was changed.
struct Frame<'a> {
    ctx: &'a TcContext,
    /// Where its bytes begin and end that lie in one place. Asked once: the compiler may keep where in the
    /// context it asks for the next time, and the verifier refuses that.
    start: usize,
    end: usize,
}

impl Bytes for Frame<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let at = self.start + offset;
        if at + N > self.end {
            return self.ctx.load(offset).ok();
        }
        // SAFETY: all `N` bytes lie between `data` and `data_end`, as the line above found; that
        // range is readable until a helper changes the frame. Bytes have no alignment.
        Some(unsafe { *(at as *const [u8; N]) })
    }
}

/// Whose the frame is. One with a VLAN tag is the host's.
#[inline(always)]
pub fn class(ctx: &TcContext) -> Class {
    let frame = Frame { ctx, start: ctx.data(), end: ctx.data_end() };
    if Facts::of(ctx).vlan { Class::NotVxlan } else { ours::class(&frame) }
}

/// Delivers the frame, or says why a worker has to.
#[inline(always)]
pub fn deliver(ctx: &TcContext) -> Result<i32, Event> {
    let facts = Facts::of(ctx);
    let mut packet = Packet {
        key: TunnelKey { vni: [0; 4], vtep: [0; 16], destination: [0; 6], source: [0; 6] },
        ethernet: [0; 14],
        overhead: 0,
        shrink: 0,
        headers: 0,
    };
    packet.read(ctx, &facts).ok_or(Event::Miss)?;
    let way = TUNNELS.get_ptr_mut(&packet.key).ok_or(Event::Miss)?;
    admit(way, 0, &facts)?;
    // SAFETY: the lookup has just returned `way`.
    let (kind, ifindex, from, to) = unsafe { ((*way).kind, (*way).ifindex, (*way).from, (*way).to) };
    // SAFETY: the context is the one of this call; the others are numbers.
    if unsafe { bpf_skb_adjust_room(ctx.skb.skb, -(packet.overhead as i32), BPF_ADJ_ROOM_MAC, packet.shrink) } != 0 {
        return Err(Event::Miss);
    }
    // The frame is longer than that, and writable since it was made shorter: this cannot fail.
    if ctx.store(0, &packet.ethernet, 0).is_err() {
        count(Event::NoHeaders);
        return Ok(leave::DROP);
    }
    let (packets, repeated) = facts.on_the_wire(packet.headers);
    let received = facts.length + repeated;
    count_hit(from, to, packets, received, received - packet.overhead * packets);
    Ok(leave::send(ctx, ifindex, kind))
}

/// What is needed of a packet.
struct Packet {
    key: TunnelKey,
    /// The inner Ethernet header.
    ethernet: [u8; 14],
    /// By how much the frame is made shorter.
    overhead: u32,
    /// How.
    shrink: u64,
    /// Bytes of headers that each frame has which it will be segmented into; unknown if it will not.
    headers: u32,
}

impl Packet {
    /// Reads a packet that is without fault and needs no change but to lose its outer headers.
    /// In place: there is little room on the stack.
    #[inline(always)]
    fn read(&mut self, ctx: &TcContext, facts: &Facts) -> Option<()> {
        match be16(head::<14>(ctx)?, 12) {
            IPV4 => self.read_over_v4(ctx, facts),
            IPV6 => self.read_over_v6(ctx, facts),
            _ => None,
        }
    }

    #[inline(always)]
    fn read_over_v4(&mut self, ctx: &TcContext, facts: &Facts) -> Option<()> {
        let bytes = head::<OVERHEAD>(ctx)?;
        let (ip_length, udp_length) = (be16(bytes, 16), be16(bytes, 38));
        let is_plain = bytes[14] == 0x45 && ip_length + 14 == facts.length && udp_length + 20 == ip_length;
        if !is_plain || ip_sum(bytes) != 0xffff || bytes[42] & 0x08 == 0 {
            return None;
        }
        let (ecn, is_checked) = (bytes[15] & 3, be16(bytes, 40) != 0);
        (self.key.vni[0], self.key.vni[1], self.key.vni[2]) = (bytes[46], bytes[47], bytes[48]);
        copy_mapped(bytes, 26, &mut self.key.vtep);
        if is_checked && facts.segment == 0 && !is_verified(ctx) {
            return None;
        }
        self.read_inner(ctx, facts, OVERHEAD, ecn)
    }

    /// Workers put flows of such a tunnel into the map only where datagrams without a checksum are
    /// accepted. One that has a checksum is theirs, whole too: what is sent behind it must not overtake it.
    #[inline(always)]
    fn read_over_v6(&mut self, ctx: &TcContext, facts: &Facts) -> Option<()> {
        let bytes = head::<OVERHEAD_V6>(ctx)?;
        let (payload, udp_length) = (be16(bytes, 18), be16(bytes, 58));
        let is_plain = bytes[14] >> 4 == 6 && payload + 54 == facts.length && udp_length == payload;
        if !is_plain || be16(bytes, 60) != 0 || bytes[62] & 0x08 == 0 {
            return None;
        }
        (self.key.vni[0], self.key.vni[1], self.key.vni[2]) = (bytes[66], bytes[67], bytes[68]);
        copy(bytes, 22, &mut self.key.vtep);
        self.read_inner(ctx, facts, OVERHEAD_V6, bytes[15] >> 4 & 3)
    }

    /// Reads the frame inside, which begins at `at` and came with the congestion mark `outer`.
    #[inline(always)]
    fn read_inner(&mut self, ctx: &TcContext, facts: &Facts, at: usize, outer: u8) -> Option<()> {
        let bytes = part::<14>(ctx, at)?;
        copy(bytes, 0, &mut self.key.destination);
        copy(bytes, 6, &mut self.key.source);
        copy(bytes, 0, &mut self.ethernet);
        self.overhead = at as u32;
        let (protocol, ecn) = match be16(bytes, 12) {
            IPV4 => self.read_v4(ctx, facts, at + 14)?,
            IPV6 => self.read_v6(ctx, facts, at + 14)?,
            _ => return None,
        };
        // The kernel does not take back what it noted of the tunnel, and would look for one when
        // it segments a datagram.
        let is_whole = facts.segment == 0 || protocol == TCP;
        (is_whole && keeps_mark(ecn, outer)).then_some(())
    }

    /// The protocol and the congestion mark of the packet inside, which begins at `at`.
    #[inline(always)]
    fn read_v4(&mut self, ctx: &TcContext, facts: &Facts, at: usize) -> Option<(u8, u8)> {
        let bytes = part::<20>(ctx, at)?;
        let (total, protocol, ecn) = (be16(bytes, 2), bytes[9], bytes[1] & 3);
        if bytes[0] != 0x45 || total < 20 || total + at as u32 > facts.length {
            return None;
        }
        self.shrink = (BPF_F_ADJ_ROOM_DECAP_L3_IPV4 | BPF_F_ADJ_ROOM_FIXED_GSO) as u64;
        self.headers = headers(ctx, facts, protocol, at + 20)?;
        Some((protocol, ecn))
    }

    #[inline(always)]
    fn read_v6(&mut self, ctx: &TcContext, facts: &Facts, at: usize) -> Option<(u8, u8)> {
        let bytes = part::<41>(ctx, at)?;
        let (payload, protocol, ecn) = (be16(bytes, 4), bytes[6], bytes[1] >> 4 & 3);
        let is_known = match protocol {
            TCP | UDP => true,
            ICMPV6 => is_echo(bytes[40]),
            _ => false,
        };
        if !is_known || bytes[0] >> 4 != 6 || payload + at as u32 + 40 > facts.length {
            return None;
        }
        self.shrink = (BPF_F_ADJ_ROOM_DECAP_L3_IPV6 | BPF_F_ADJ_ROOM_FIXED_GSO) as u64;
        self.headers = headers(ctx, facts, protocol, at + 40)?;
        Some((protocol, ecn))
    }
}

/// Whether the device has found the outer UDP checksum right.
#[inline(always)]
fn is_verified(ctx: &TcContext) -> bool {
    // SAFETY: the context is the one of this call; the other is a number.
    unsafe { bpf_csum_level(ctx.skb.skb, u64::from(BPF_CSUM_LEVEL_QUERY)) >= 0 }
}

/// Whether RFC 6040 section 4.2 leaves the inner congestion mark as it is, with this outer one.
#[inline(always)]
fn keeps_mark(inner: u8, outer: u8) -> bool {
    const NOT_ECT: u8 = 0;
    const ECT1: u8 = 1;
    const CE: u8 = 3;
    inner == CE || outer == NOT_ECT || outer == inner || (outer != CE && (inner == NOT_ECT || inner == ECT1))
}
