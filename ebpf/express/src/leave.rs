//! How a frame leaves a program: to an interface, into a container, or to a worker.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::{
        bpf_get_hash_recalc, bpf_redirect, bpf_redirect_peer, bpf_skb_change_type, bpf_skb_vlan_pop, bpf_skb_vlan_push,
    },
    programs::TcContext,
};
use vxlane_abi::express::{Event, KIND_PEER};

use crate::maps::{TAGS, count, setup};

/// On to whoever comes next: other programs, then the host.
pub const PASS: i32 = TC_ACT_UNSPEC;
/// No further. Whoever says so counts why.
pub const DROP: i32 = TC_ACT_SHOT as i32;

/// Sends the frame by an interface, or into the namespace behind it.
#[inline(always)]
pub fn send(ctx: &TcContext, ifindex: u32, kind: u16) -> i32 {
    if kind != KIND_PEER {
        // SAFETY: the helper takes numbers, and checks them.
        return unsafe { bpf_redirect(ifindex, 0) } as i32;
    }
    // The kernel classified the frame by the address of the interface it came in on, and does not
    // do so again on this way: it would take a frame for somebody else's.
    // SAFETY: the context is the one of this call.
    if unsafe { (*ctx.skb.skb).pkt_type } != PACKET_HOST {
        // SAFETY: as above.
        unsafe { bpf_skb_change_type(ctx.skb.skb, PACKET_HOST) };
    }
    // SAFETY: the helper takes numbers, and checks them.
    unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
}

/// Sends the frame to a worker, with the tag of the port it came in at.
///
/// A tag that the frame has already stays behind ours: the kernel puts it back into the bytes.
#[inline(always)]
pub fn punt(ctx: &TcContext, event: Event) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the kernel passes a valid `__sk_buff`, alive for this call.
    let ifindex = unsafe { (*skb).ingress_ifindex };
    // SAFETY: the value is copied out at once.
    let tag = unsafe { TAGS.get(&ifindex) }.copied();
    let (Some(tag), Some(setup)) = (tag, setup()) else {
        // The interface is just being attached or detached.
        count(Event::Passed);
        return PASS;
    };
    let (punt, queues) = (setup.punt, setup.queues);
    // SAFETY: the context is the one of this call; the other two are numbers.
    if unsafe { bpf_skb_vlan_push(skb, VLAN.to_be(), tag as u16) } != 0 {
        count(Event::NoTag);
        return DROP;
    }
    if queues > 1 {
        // SAFETY: the context is the one of this call, and this field of it may be written. The
        // kernel takes the number less one for the queue.
        unsafe { (&raw mut (*skb).queue_mapping).write_volatile(bpf_get_hash_recalc(skb) % queues + 1) };
    }
    count(event);
    // SAFETY: the helper takes numbers, and checks them.
    unsafe { bpf_redirect(punt, 0) as i32 }
}

/// Takes off the tag of a frame from a worker.
#[inline(always)]
pub fn untag(ctx: &TcContext) {
    // SAFETY: the context is the one of this call. It cannot fail on a tag that lies beside the
    // frame, where the kernel has put it before this program runs.
    unsafe { bpf_skb_vlan_pop(ctx.skb.skb) };
}

const VLAN: u16 = 0x8100;
/// `include/uapi/linux/if_packet.h`
const PACKET_HOST: u32 = 0;
