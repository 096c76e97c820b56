//! Reading a frame, whose bytes may not all lie in one place.

use aya_ebpf::programs::TcContext;

/// The first `N` bytes of the frame; `None` if it is shorter.
#[inline(always)]
pub fn head<const N: usize>(ctx: &TcContext) -> Option<&[u8; N]> {
    part(ctx, 0)
}

/// The `N` bytes at `at`, which is a constant wherever this is called; `None` if the frame is
/// shorter.
#[inline(always)]
pub fn part<const N: usize>(ctx: &TcContext, at: usize) -> Option<&[u8; N]> {
    let start = ctx.data();
    if start + at + N <= ctx.data_end() {
        // SAFETY: the range from `data` to `data_end` is readable until a helper changes the
        // frame, which nobody does while what we return is in use.
        return Some(unsafe { &*((start + at) as *const [u8; N]) });
    }
    ctx.pull_data((at + N) as u32).ok()?;
    let start = ctx.data();
    if start + at + N > ctx.data_end() {
        return None;
    }
    // SAFETY: as above, with what `pull_data` made of the frame.
    Some(unsafe { &*((start + at) as *const [u8; N]) })
}

/// The big-endian number at `at`.
#[inline(always)]
pub fn be16<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from(bytes[at]) << 8 | u32::from(bytes[at + 1])
}

/// Copies the `M` bytes at `at`. Numbers are constants wherever this is called, so that the check
/// is done by the compiler.
#[inline(always)]
pub fn copy<const N: usize, const M: usize>(bytes: &[u8; N], at: usize, to: &mut [u8; M]) {
    let mut index = 0;
    while index < M {
        to[index] = bytes[at + index];
        index += 1;
    }
}

/// Copies the address of IPv4 at `at`, as IPv6 has it mapped (RFC 4291 section 2.5.5.2), to where
/// there are zeros.
#[inline(always)]
pub fn copy_mapped<const N: usize>(bytes: &[u8; N], at: usize, to: &mut [u8; 16]) {
    (to[10], to[11]) = (0xff, 0xff);
    let mut index = 0;
    while index < 4 {
        to[12 + index] = bytes[at + index];
        index += 1;
    }
}

/// The four bytes at `at`, as they lie.
#[inline(always)]
pub fn ne32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from(bytes[at])
        | u32::from(bytes[at + 1]) << 8
        | u32::from(bytes[at + 2]) << 16
        | u32::from(bytes[at + 3]) << 24
}

/// The eight bytes at `at`, as they lie: these programs are built for little-endian machines.
#[inline(always)]
pub fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from(ne32(bytes, at)) | u64::from(ne32(bytes, at + 4)) << 32
}

/// The sum of the words of an IPv4 header without options behind an Ethernet header: 0xffff if its
/// checksum is right.
#[inline(always)]
pub fn ip_sum<const N: usize>(bytes: &[u8; N]) -> u16 {
    let mut sum = 0;
    let mut at = 14;
    while at < 34 {
        sum += be16(bytes, at);
        at += 2;
    }
    fold(sum)
}

/// Adds what is beyond the lower 16 bits of a sum of words to these (RFC 1071).
#[inline(always)]
pub fn fold(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// What the kernel says of the frame besides its bytes.
pub struct Facts {
    /// Where it came in.
    pub ifindex: u32,
    /// All of it.
    pub length: u32,
    /// The payload of each frame that it will be segmented into; 0 if it will not.
    pub segment: u32,
    /// Into how many frames it will be segmented, if the kernel knows already.
    segments: u32,
    /// Whether a VLAN tag has been taken out of it.
    pub vlan: bool,
}

impl Facts {
    #[inline(always)]
    pub fn of(ctx: &TcContext) -> Self {
        let skb = ctx.skb.skb;
        // SAFETY: the kernel passes a valid `__sk_buff`, alive for this call.
        let (ifindex, length, segment, segments, vlan) =
            unsafe { ((*skb).ingress_ifindex, (*skb).len, (*skb).gso_size, (*skb).gso_segs, (*skb).vlan_present) };
        Self { ifindex, length, segment, segments, vlan: vlan != 0 }
    }

    /// How many frames it is on the wire, where each repeats the first `headers` bytes, and how
    /// many bytes all but the first add by that.
    #[inline(always)]
    pub fn on_the_wire(&self, headers: u32) -> (u32, u32) {
        if self.segment == 0 {
            return (1, 0);
        }
        let packets = match self.segments {
            // The kernel counts what a guest or a packet socket sends when it segments it.
            0 => self.length.saturating_sub(headers).div_ceil(self.segment).max(1),
            segments => segments,
        };
        (packets, (packets - 1) * headers)
    }
}

/// The bytes of headers that each frame has into which this one will be segmented, with its
/// transport header at `transport`. 0 if it will not be segmented, and `None` if that is nothing
/// for this lane.
#[inline(always)]
pub fn headers(ctx: &TcContext, facts: &Facts, protocol: u8, transport: usize) -> Option<u32> {
    if facts.segment == 0 {
        return Some(0);
    }
    let header = match protocol {
        TCP => u32::from(part::<13>(ctx, transport)?[12] >> 4) * 4,
        UDP => 8,
        _ => return None,
    };
    Some(transport as u32 + header)
}

pub const IPV4: u32 = 0x0800;
pub const IPV6: u32 = 0x86dd;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

/// Whether an ICMPv6 message of this type is an echo, and not one that workers listen to or
/// answer (neighbours, routers, listeners).
#[inline(always)]
pub fn is_echo(kind: u8) -> bool {
    kind == 128 || kind == 129
}
