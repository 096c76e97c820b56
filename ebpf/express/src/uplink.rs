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
    Datagram, Vtep6Address, VtepAddress,
    express::{Event, OVERHEAD, TunnelKey},
    uplink::{Class, Sight, classify},
};

use crate::{
    frame::{Facts, ICMPV6, IPV4, IPV6, TCP, UDP, be16, copy, head, headers, ip_sum, is_echo},
    leave,
    maps::{DATAGRAMS, LEASES, TUNNELS, admit, count, count_hit},
};

/// The frame that the program was called for.
struct Frame<'a>(&'a TcContext);

impl Sight for Frame<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let at = self.0.data() + offset;
        if at + N > self.0.data_end() {
            return self.0.load(offset).ok();
        }
        // SAFETY: all `N` bytes lie between `data` and `data_end`, as the line above found; that
        // range is readable until a helper changes the frame. Bytes have no alignment.
        Some(unsafe { *(at as *const [u8; N]) })
    }

    #[inline(always)]
    fn lent(&self, index: u32) -> u64 {
        LEASES.get(index).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn awaits(&self, datagram: &Datagram) -> bool {
        // SAFETY: nothing is read but whether there is such an entry.
        unsafe { DATAGRAMS.get(datagram) }.is_some()
    }

    #[inline(always)]
    fn expect(&self, datagram: &Datagram) {
        let _ = DATAGRAMS.insert(datagram, &0, 0);
    }
}

/// Nothing over IPv6 is ours.
const NO_VTEP6: Vtep6Address = Vtep6Address { address: [0; 16], port: [0; 2], reserved: [0; 6] };

/// Whose the frame is. One with a VLAN tag is the host's.
#[inline(always)]
pub fn class(ctx: &TcContext, vtep: &VtepAddress) -> Class {
    match Facts::of(ctx).vlan {
        true => Class::NotVxlan,
        false => classify(&Frame(ctx), vtep, &NO_VTEP6),
    }
}

/// Delivers the frame, or says why a worker has to.
#[inline(always)]
pub fn deliver(ctx: &TcContext) -> Result<i32, Event> {
    let facts = Facts::of(ctx);
    let mut packet = Packet {
        key: TunnelKey { vni: [0; 4], vtep: [0; 4], destination: [0; 6], source: [0; 6] },
        ethernet: [0; 14],
        shrink: 0,
        headers: 0,
    };
    packet.read(ctx, &facts).ok_or(Event::Miss)?;
    let way = TUNNELS.get_ptr_mut(&packet.key).ok_or(Event::Miss)?;
    admit(way, 0, &facts)?;
    // SAFETY: the lookup has just returned `way`.
    let (kind, ifindex, from, to) = unsafe { ((*way).kind, (*way).ifindex, (*way).from, (*way).to) };
    // SAFETY: the context is the one of this call; the others are numbers.
    if unsafe { bpf_skb_adjust_room(ctx.skb.skb, -(OVERHEAD as i32), BPF_ADJ_ROOM_MAC, packet.shrink) } != 0 {
        return Err(Event::Miss);
    }
    // The frame is longer than that, and writable since it was made shorter: this cannot fail.
    if ctx.store(0, &packet.ethernet, 0).is_err() {
        count(Event::NoHeaders);
        return Ok(leave::DROP);
    }
    let (packets, repeated) = facts.on_the_wire(packet.headers);
    let received = facts.length + repeated;
    count_hit(from, to, packets, received, received - OVERHEAD as u32 * packets);
    Ok(leave::send(ctx, ifindex, kind))
}

/// What is needed of a packet.
struct Packet {
    key: TunnelKey,
    /// The inner Ethernet header.
    ethernet: [u8; 14],
    /// How the frame is made shorter.
    shrink: u64,
    /// Bytes of headers that each frame has which it will be segmented into; unknown if it will not.
    headers: u32,
}

impl Packet {
    /// Reads a packet that is without fault and needs no change but to lose its outer headers.
    /// In place: there is little room on the stack.
    #[inline(always)]
    fn read(&mut self, ctx: &TcContext, facts: &Facts) -> Option<()> {
        let bytes = head::<84>(ctx)?;
        let (ip_length, udp_length) = (be16(bytes, 16), be16(bytes, 38));
        let is_plain = bytes[14] == 0x45 && ip_length + 14 == facts.length && udp_length + 20 == ip_length;
        if !is_plain || ip_sum(bytes) != 0xffff || bytes[42] & 0x08 == 0 {
            return None;
        }
        let (outer_ecn, is_checked) = (bytes[15] & 3, be16(bytes, 40) != 0);
        (self.key.vni[0], self.key.vni[1], self.key.vni[2]) = (bytes[46], bytes[47], bytes[48]);
        copy(bytes, 26, &mut self.key.vtep);
        copy(bytes, 50, &mut self.key.destination);
        copy(bytes, 56, &mut self.key.source);
        copy(bytes, 50, &mut self.ethernet);
        let is_v4 = be16(bytes, 62) == IPV4;
        let (protocol, ecn) = match be16(bytes, 62) {
            IPV4 => self.read_v4(bytes, facts)?,
            IPV6 => self.read_v6(head::<105>(ctx)?, facts)?,
            _ => return None,
        };
        // The kernel does not take back what it noted of the tunnel, and would look for one when
        // it segments a datagram.
        if facts.segment != 0 && protocol != TCP {
            return None;
        }
        if is_checked && facts.segment == 0 && !is_verified(ctx) {
            return None;
        }
        self.headers =
            if is_v4 { headers::<97>(ctx, facts, protocol, 84)? } else { headers::<117>(ctx, facts, protocol, 104)? };
        keeps_mark(ecn, outer_ecn).then_some(())
    }

    /// The protocol and the congestion mark of the packet inside.
    #[inline(always)]
    fn read_v4(&mut self, bytes: &[u8; 84], facts: &Facts) -> Option<(u8, u8)> {
        let total = be16(bytes, 66);
        self.shrink = (BPF_F_ADJ_ROOM_DECAP_L3_IPV4 | BPF_F_ADJ_ROOM_FIXED_GSO) as u64;
        let fits = bytes[64] == 0x45 && total >= 20 && total + 64 <= facts.length;
        fits.then_some((bytes[73], bytes[65] & 3))
    }

    #[inline(always)]
    fn read_v6(&mut self, bytes: &[u8; 105], facts: &Facts) -> Option<(u8, u8)> {
        self.shrink = (BPF_F_ADJ_ROOM_DECAP_L3_IPV6 | BPF_F_ADJ_ROOM_FIXED_GSO) as u64;
        let is_known = match bytes[70] {
            TCP | UDP => true,
            ICMPV6 => is_echo(bytes[104]),
            _ => false,
        };
        let fits = bytes[64] >> 4 == 6 && be16(bytes, 68) + 104 <= facts.length;
        (fits && is_known).then_some((bytes[70], bytes[65] >> 4 & 3))
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
