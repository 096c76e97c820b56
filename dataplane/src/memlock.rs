//! The limit on locked memory, which older kernels hold against BPF maps and all against UMEM.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// Lifts `RLIMIT_MEMLOCK` as far as this process may, and returns what it is then, in bytes;
/// `None` for no limit.
///
/// Not being allowed to is no error here: kernels since 5.11 account maps otherwise, and what
/// holds `CAP_IPC_LOCK` is not limited. Where the limit does bite, the call that hit it says so.
pub fn lift() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap_or((0, 0));
    if soft == RLIM_INFINITY {
        return None;
    }
    if setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_ok() {
        return None;
    }
    match setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard) {
        Ok(()) => (hard != RLIM_INFINITY).then_some(hard),
        Err(_) => Some(soft),
    }
}
