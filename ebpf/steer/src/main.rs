//! The XDP program on every port: is this frame vxlane's or the host's?
//!
//! It passes when in doubt. What it redirects lands in the receive ring of the socket that
//! serves the frame's own queue; `dataplane/src/attach.rs` fills the maps.
#![no_std]
#![no_main]

mod frame;
#[path = "../../ours.rs"]
mod ours;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT},
    macros::{map, xdp},
    maps::{HashMap, PerCpuArray, XskMap},
    programs::XdpContext,
};
use frame::Frame;
use vxlane_abi::{
    COUNTERS as COUNTER_COUNT, Counter, MAX_PORTS, MAX_SLOTS, PortSteer, ROLE_ACCESS, ROLE_LANE, ROLE_UPLINK,
    uplink::Class,
};

#[map]
static PORTS: HashMap<u32, PortSteer> = HashMap::with_max_entries(MAX_PORTS, 0);
#[map]
static XSKS: XskMap = XskMap::with_max_entries(MAX_SLOTS, 0);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_COUNT, 0);

/// Entry for every frame of every attached interface.
#[xdp(frags)]
pub fn steer(ctx: XdpContext) -> u32 {
    // SAFETY: the kernel passes a valid `xdp_md`, alive for this call.
    let ifindex = unsafe { (*ctx.ctx).ingress_ifindex };
    // SAFETY: the value is copied out at once. Should the user side replace it meanwhile, the
    // copy may mix two values of the same port; `redirect` checks what it uses.
    let Some(port) = (unsafe { PORTS.get(&ifindex) }).copied() else { return pass(Counter::UnknownPort) };
    match port.role {
        ROLE_ACCESS | ROLE_LANE => redirect(&ctx, &port),
        ROLE_UPLINK => match ours::class(&Frame(&ctx)) {
            Class::Vxlan | Class::Lent => redirect(&ctx, &port),
            Class::NotVxlan => pass(Counter::NotVxlan),
            Class::Fragment => pass(Counter::Fragment),
        },
        _ => pass(Counter::UnknownPort),
    }
}

/// To the socket of the frame's queue, or, when there is none, to the host: unless it came by the
/// express lane, where the host has no part.
#[inline(always)]
fn redirect(ctx: &XdpContext, port: &PortSteer) -> u32 {
    // SAFETY: as in `steer`.
    let queue = unsafe { (*ctx.ctx).rx_queue_index };
    if queue >= port.queues {
        return without_socket(port);
    }
    // The low bits of the flags are what the helper answers when the slot is empty.
    match XSKS.redirect(port.first_slot.wrapping_add(queue), u64::from(XDP_PASS)) {
        Ok(_) => {
            count(Counter::Redirected);
            XDP_REDIRECT
        }
        Err(_) => without_socket(port),
    }
}

#[inline(always)]
fn without_socket(port: &PortSteer) -> u32 {
    if port.role == ROLE_LANE {
        count(Counter::NoWorker);
        return XDP_DROP;
    }
    pass(Counter::NoSocket)
}

#[inline(always)]
fn pass(why: Counter) -> u32 {
    count(why);
    XDP_PASS
}

#[inline(always)]
fn count(what: Counter) {
    if let Some(counter) = COUNTERS.get_ptr_mut(what as u32) {
        // SAFETY: the helper returned a pointer into this CPU's copy, and a program is not
        // interrupted by itself on the same CPU.
        unsafe { *counter = (*counter).wrapping_add(1) };
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// SAFETY: no other symbol of this object is named so; the loader reads it as a C string.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
