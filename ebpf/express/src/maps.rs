//! The maps, and what is read and counted in them.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::generated::bpf_ktime_get_coarse_ns,
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use vxlane_abi::express::{
    ABSENT, EVENTS as EVENT_COUNT, Encap, Event, Exit, FlowKey, MAX_FLOWS, MAX_TAGS, OUTSIDE, PortCounts, Rewrite,
    SessionKey, Setup, TunnelKey, Use, Way,
};

use crate::frame::Facts;

#[map]
pub static FLOWS: HashMap<FlowKey, Encap> = HashMap::with_max_entries(MAX_FLOWS, 0);
#[map]
pub static TUNNELS: HashMap<TunnelKey, Way> = HashMap::with_max_entries(MAX_FLOWS, 0);
#[map]
pub static SESSIONS: HashMap<SessionKey, Rewrite> = HashMap::with_max_entries(MAX_FLOWS, 0);
#[map]
static USES: Array<Use> = Array::with_max_entries(MAX_FLOWS, BPF_F_MMAPABLE);
#[map]
static EPOCHS: Array<u64> = Array::with_max_entries(OUTSIDE + 1, BPF_F_MMAPABLE);
#[map]
pub static TAGS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_TAGS, 0);
#[map]
pub static EXITS: Array<Exit> = Array::with_max_entries(MAX_TAGS, 0);
#[map]
static SETUP: Array<Setup> = Array::with_max_entries(1, 0);
#[map]
static BEAT: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static PORT_COUNTS: PerCpuArray<PortCounts> = PerCpuArray::with_max_entries(MAX_TAGS, 0);
#[map]
static EVENTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(EVENT_COUNT, 0);

/// What user space has set up.
#[inline(always)]
pub fn setup() -> Option<&'static Setup> {
    SETUP.get(0)
}

/// The epoch of what lies outside of all networks.
#[inline(always)]
pub fn outside() -> u64 {
    EPOCHS.get(OUTSIDE).copied().unwrap_or(0)
}

/// Whether a flow is good now for the frame that has these `facts`; where it is not, why. `also` is
/// added to the epoch of its network.
///
/// While no worker is there, nobody could confirm it: it goes on until one of its stations would
/// have been forgotten.
///
/// What is still to be segmented would come to a worker as dozens of frames, and to its receiver so
/// late that a TCP sender takes them for lost. So it confirms a flow only when nothing else has for
/// half of the time that is left then.
#[inline(always)]
pub fn admit(way: *mut Way, also: u64, facts: &Facts) -> Result<(), Event> {
    // SAFETY: callers pass what a lookup just returned; such memory stays readable for this call.
    // Should user space replace the value meanwhile, each field is still one that it wrote.
    let (network, epoch) = unsafe { ((*way).network, (*way).epoch) };
    // SAFETY: as above.
    let (expires, confirm, ages) = unsafe { ((*way).expires, (*way).confirm, (*way).ages) };
    // SAFETY: the helper takes nothing and returns a number.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let attended = BEAT.get(0).is_some_and(|beat| now < beat.wrapping_add(ABSENT));
    let is_now = EPOCHS.get(network).is_some_and(|&current| current.wrapping_add(also) as u32 == epoch);
    if !is_now || now >= if attended { expires } else { ages } {
        return Err(Event::Stale);
    }
    let patience = if facts.segment == 0 { 0 } else { expires.saturating_sub(confirm) / 2 };
    if attended && now >= confirm.saturating_add(patience) {
        // SAFETY: as above, and writable. Of two processors that get here at once both may send a
        // frame to be confirmed, which does no harm.
        unsafe { (*way).confirm = u64::MAX };
        return Err(Event::Confirm);
    }
    Ok(())
}

/// Counts a frame that took this lane, as `packets` frames of `received` bytes in all that came in
/// at one port, and leave at another with `sent`.
#[inline(always)]
pub fn count_hit(from: u16, to: u16, packets: u32, received: u32, sent: u32) {
    count(Event::Hit);
    add(Event::Carried, packets);
    if let Some(counts) = PORT_COUNTS.get_ptr_mut(u32::from(from)) {
        // SAFETY: the helper returned a pointer into this CPU's copy, and a program is not
        // interrupted by itself on the same CPU.
        unsafe {
            (*counts).rx_packets = (*counts).rx_packets.wrapping_add(u64::from(packets));
            (*counts).rx_bytes = (*counts).rx_bytes.wrapping_add(u64::from(received));
        }
    }
    if let Some(counts) = PORT_COUNTS.get_ptr_mut(u32::from(to)) {
        // SAFETY: as above.
        unsafe {
            (*counts).tx_packets = (*counts).tx_packets.wrapping_add(u64::from(packets));
            (*counts).tx_bytes = (*counts).tx_bytes.wrapping_add(u64::from(sent));
        }
    }
}

/// Notes that packets of `bytes` in all have made use of a session, one way. They come one after the
/// other, mostly: of two processors that get here at once one may not be counted.
#[inline(always)]
pub fn count_use(place: u32, packets: u32, bytes: u32) {
    let Some(noted) = USES.get_ptr_mut(place) else { return };
    // SAFETY: the helper takes nothing and returns a number.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    // SAFETY: the helper returned a pointer to a `Use`, readable and writable for this call; each of
    // its parts is aligned, and of those that write them at once one is the last.
    unsafe {
        (*noted).last = now;
        (*noted).packets = (*noted).packets.wrapping_add(u64::from(packets));
        (*noted).bytes = (*noted).bytes.wrapping_add(u64::from(bytes));
    }
}

#[inline(always)]
pub fn count(what: Event) {
    add(what, 1);
}

#[inline(always)]
fn add(what: Event, number: u32) {
    if let Some(counter) = EVENTS.get_ptr_mut(what as u32) {
        // SAFETY: as in `count_hit`.
        unsafe { *counter = (*counter).wrapping_add(u64::from(number)) };
    }
}
