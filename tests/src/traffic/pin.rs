//! Keeps a thread on one CPU.

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::LabError;

/// Keeps the calling thread on `cpu`, counted from 0, until it ends.
///
/// # Errors
/// [`LabError::Syscall`] when there is no such CPU or this process may not use it.
pub fn to_cpu(cpu: usize) -> Result<(), LabError> {
    let mut set = CpuSet::new();
    // The thread id 0 means the caller.
    set.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(LabError::syscall("sched_setaffinity", format!("CPU {cpu}")))
}
