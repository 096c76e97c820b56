//! The TC programs of the express lane: they repeat what workers decided, and ask when in doubt.
//!
//! A frame whose flow is known leaves at once, whole even where the kernel will segment it later.
//! Every other frame gets a tag that names its port, and goes through the punt pair into the ring
//! of a worker. `dataplane/src/express.rs` fills the maps.
#![no_std]
#![no_main]

mod access;
mod frame;
mod leave;
mod maps;
#[path = "../../ours.rs"]
mod ours;
mod session;
mod uplink;

use aya_ebpf::{macros::classifier, programs::TcContext};
use leave::{PASS, punt};
use maps::{EXITS, count};
use session::End;
use vxlane_abi::{
    express::{Event, MAX_TAGS},
    uplink::Class,
};

/// Entry for every frame that an endpoint sends.
#[classifier]
#[inline(always)] // A function of its own would be named by the path that this is built in.
pub fn express_access(ctx: TcContext) -> i32 {
    let forwarded = match access::forward(&ctx) {
        Err(Event::Miss) => session::forward(&ctx, End::Source),
        known => known,
    };
    forwarded.unwrap_or_else(|event| punt(&ctx, event))
}

/// Entry for every frame that comes in on the uplink.
#[classifier]
#[inline(always)] // A function of its own would be named by the path that this is built in.
pub fn express_uplink(ctx: TcContext) -> i32 {
    match uplink::class(&ctx) {
        Class::Vxlan => uplink::deliver(&ctx).unwrap_or_else(|event| punt(&ctx, event)),
        Class::Lent => session::forward(&ctx, End::Destination).unwrap_or_else(|event| punt(&ctx, event)),
        Class::NotVxlan | Class::Fragment => {
            count(Event::Passed);
            PASS
        }
    }
}

/// Entry for every frame that a worker sends.
#[classifier]
#[inline(always)] // A function of its own would be named by the path that this is built in.
pub fn express_exit(ctx: TcContext) -> i32 {
    // SAFETY: the kernel passes a valid `__sk_buff`, alive for this call.
    let (present, tag) = unsafe { ((*ctx.skb.skb).vlan_present, (*ctx.skb.skb).vlan_tci) };
    let exit = EXITS.get(tag & (MAX_TAGS - 1)).filter(|exit| present != 0 && exit.ifindex != 0);
    let Some(&exit) = exit else {
        count(Event::NoExit);
        return leave::DROP;
    };
    leave::untag(&ctx);
    count(Event::Sent);
    leave::send(&ctx, exit.ifindex, exit.kind)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// SAFETY: no other symbol of this object is named so; the loader reads it as a C string.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
