//! The descriptor store of a service manager (`sd_notify(3)`, `FDSTORE=1`).

use std::{env, io, os::fd::BorrowedFd};

use sd_notify::NotifyState;

use super::{Descriptors, wire};

/// Whether the service manager keeps descriptors. systemd says so from version 254 on; a unit for
/// an older one says it in its place (`Environment=FDSTORE=…`).
pub(super) fn is_offered() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some() && env::var_os("FDSTORE").is_some_and(|value| value != "0")
}

pub(super) fn put(name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(name)], &[fd])
}

pub(super) fn remove(name: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])
}

/// What the service manager has kept since an earlier life.
///
/// # Errors
/// If the variables that tell of it are not to be understood.
pub(super) fn inherited() -> io::Result<Descriptors> {
    Ok(sd_notify::listen_fds_with_names()?.map(|(fd, name)| (name, wire::own(fd))).collect())
}
