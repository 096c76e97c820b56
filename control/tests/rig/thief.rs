//! Somebody who takes our programs off interfaces.

use std::{
    fs,
    os::fd::{FromRawFd, OwnedFd},
};

use nix::libc;
use vxlane_dataplane::attach::KeptLink;

use super::Daemon;

/// Takes our program off the interface with this index, by the daemon's own descriptor.
#[expect(unsafe_code, reason = "nothing wraps pidfd_getfd")]
pub(crate) fn take_program_off(daemon: &Daemon, index: u32) {
    // SAFETY: takes numbers only.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, daemon.pid().as_raw(), 0) };
    assert!(process >= 0);
    for entry in fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap() {
        let path = entry.unwrap().path();
        if !fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().contains("bpf_link")) {
            continue;
        }
        let number: i32 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        // SAFETY: takes numbers only.
        let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process, number, 0) };
        // SAFETY: the kernel has made this descriptor for us just now.
        let link = unsafe { OwnedFd::from_raw_fd(i32::try_from(copy).unwrap()) };
        let link = KeptLink::from_label("", link);
        if link.place().unwrap().is_some_and(|(found, _)| found == index) {
            link.detach();
        }
    }
    // SAFETY: made above, and used nowhere else.
    drop(unsafe { OwnedFd::from_raw_fd(i32::try_from(process).unwrap()) });
}
