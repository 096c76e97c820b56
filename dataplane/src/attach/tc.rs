//! One of our TC programs on what comes in at an interface, by whatever means the kernel has.
//!
//! With a link of its own (TCX, Linux 6.6) it leaves with that. As a filter of the clsact queueing
//! discipline it comes behind those of others, and leaves them, and their discipline, in place.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use aya::programs::{
    SchedClassifier, TcAttachType,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};

use super::installed::{self, Installed};
use crate::link::{Link, filters};

/// The means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// A link.
    Tcx,
    /// A filter.
    Clsact,
}

impl Means {
    /// What people call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// A program that is on an interface, and leaves it when dropped.
pub(super) enum Placed {
    Link(Installed),
    Filter(Filter),
}

/// What a program that is on an interface lives on when the process that put it there has ended.
#[derive(Debug)]
pub(super) enum KeptProgram {
    /// The BPF link.
    Link(OwnedFd),
    /// The kernel keeps filters by itself; the program is what tells that it is ours.
    Filter(Spot, OwnedFd),
}

/// Where a filter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    index: u32,
    priority: u16,
    handle: u32,
    /// Whether the queueing discipline is there for it.
    made: bool,
}

/// A filter of ours.
pub(super) struct Filter {
    spot: Spot,
    name: String,
    program: u32,
    /// Keeps the program's number from being another's.
    descriptor: OwnedFd,
}

/// Behind the filters of those who leave the choice to the kernel, which begins at 49152 and
/// counts down. Another kind of filter may have the first one.
const PRIORITIES: std::ops::Range<u16> = 61_000..61_016;

impl Placed {
    /// Puts `program` on `link`.
    ///
    /// # Errors
    /// What the kernel answered.
    pub(super) fn create(program: &mut SchedClassifier, link: &Link, means: Means) -> io::Result<Self> {
        match means {
            Means::Tcx => Installed::create_tc(fd(program)?.as_fd(), link.index).map(Self::Link),
            Means::Clsact => Filter::create(program, link).map(Self::Filter),
        }
    }

    /// By which means it is there.
    pub(super) fn means(&self) -> Means {
        match self {
            Self::Link(_) => Means::Tcx,
            Self::Filter(_) => Means::Clsact,
        }
    }

    /// One that an earlier process has put on `link`; `None` if it is there no more.
    ///
    /// # Errors
    /// What the kernel answered when asked about it.
    pub(super) fn kept(kept: KeptProgram, link: &Link) -> io::Result<Option<Self>> {
        let this = match kept {
            KeptProgram::Link(fd) => Self::Link(Installed::kept(fd)),
            KeptProgram::Filter(spot, descriptor) => {
                let program = installed::program_number(&descriptor)?;
                Self::Filter(Filter { spot, name: link.name.clone(), program, descriptor })
            }
        };
        Ok(this.is_on(link.index)?.then_some(this))
    }

    /// Has `program` run in the place of the one that is there, from one frame to the next.
    ///
    /// # Errors
    /// What the kernel answered.
    pub(super) fn replace(&mut self, program: &mut SchedClassifier) -> io::Result<()> {
        match self {
            Self::Link(link) => link.replace(fd(program)?.as_fd()),
            Self::Filter(filter) => filter.replace(program),
        }
    }

    /// Whether it still is on the interface with this index.
    ///
    /// # Errors
    /// What the kernel answered.
    pub(super) fn is_on(&self, index: u32) -> io::Result<bool> {
        match self {
            Self::Link(link) => Ok(link.info()?.ifindex == index),
            Self::Filter(filter) => Ok(filter.spot.index == index && filter.is_there()?),
        }
    }

    /// What it lives on.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(super) fn keep(&self) -> io::Result<KeptProgram> {
        match self {
            Self::Link(link) => link.fd().try_clone_to_owned().map(KeptProgram::Link),
            Self::Filter(filter) => Ok(KeptProgram::Filter(filter.spot, filter.descriptor.try_clone()?)),
        }
    }
}

impl KeptProgram {
    /// Where it is, in letters, digits and dots.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Link(_) => "link".to_owned(),
            Self::Filter(Spot { index, priority, handle, made }, _) => {
                format!("filter.{index}.{priority}.{handle}.{}", u8::from(*made))
            }
        }
    }

    /// The opposite of [`label`](Self::label); none if it is not one.
    pub(super) fn from_label(label: &str, fd: OwnedFd) -> Option<Self> {
        if label == "link" {
            return Some(Self::Link(fd));
        }
        let numbers: Vec<u32> =
            label.strip_prefix("filter.")?.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        let &[index, priority, handle, made] = numbers.as_slice() else { return None };
        Some(Self::Filter(Spot { index, priority: priority.try_into().ok()?, handle, made: made != 0 }, fd))
    }

    /// What keeps it.
    pub(super) fn fd(&self) -> &OwnedFd {
        match self {
            Self::Link(fd) | Self::Filter(_, fd) => fd,
        }
    }
}

impl Filter {
    fn create(program: &mut SchedClassifier, link: &Link) -> io::Result<Self> {
        let made = match tc::qdisc_add_clsact(&link.name) {
            Ok(()) => true,
            Err(error) if number(&error) == Some(libc::EEXIST) => false,
            Err(error) => return Err(io::Error::other(error)),
        };
        let created = Self::find_room(program, link, made);
        if created.is_err() && made {
            // The first error is the one to report.
            let _ = filters::remove_clsact(link.index);
        }
        created
    }

    fn find_room(program: &mut SchedClassifier, link: &Link, made: bool) -> io::Result<Self> {
        let mut last = io::Error::from_raw_os_error(libc::EEXIST);
        for priority in PRIORITIES {
            let options = NlOptions { priority, ..NlOptions::default() };
            match program.attach_with_options(&link.name, TcAttachType::Ingress, TcAttachOptions::Netlink(options)) {
                Ok(id) => {
                    let attached = program.take_link(id).map_err(io::Error::other)?;
                    let handle = attached.handle().map_err(io::Error::other)?.into();
                    // It stays where it is, and is ours to take away.
                    std::mem::forget(attached);
                    let descriptor = fd(program)?.as_fd().try_clone_to_owned()?;
                    let spot = Spot { index: link.index, priority, handle, made };
                    let program = installed::program_number(&descriptor)?;
                    return Ok(Self { spot, name: link.name.clone(), program, descriptor });
                }
                Err(error) => last = io::Error::other(error),
            }
        }
        Err(last)
    }

    fn attached(&self) -> io::Result<SchedClassifierLink> {
        let (priority, handle) = (self.spot.priority, TcHandle::from(self.spot.handle));
        SchedClassifierLink::attached(&self.name, TcAttachType::Ingress, priority, handle, None)
    }

    fn replace(&mut self, program: &mut SchedClassifier) -> io::Result<()> {
        let id = program.attach_to_link(self.attached()?).map_err(io::Error::other)?;
        // As in `find_room`.
        std::mem::forget(program.take_link(id).map_err(io::Error::other)?);
        self.descriptor = fd(program)?.as_fd().try_clone_to_owned()?;
        self.program = installed::program_number(&self.descriptor)?;
        Ok(())
    }

    fn is_there(&self) -> io::Result<bool> {
        let spot = (self.spot.priority, self.spot.handle, Some(self.program));
        let there = filters::on_ingress(self.spot.index)?;
        Ok(there.iter().any(|filter| (filter.priority, filter.handle, filter.program) == spot))
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        // Somebody else's may be in its place by now, or the interface be gone.
        if self.is_there().is_ok_and(|there| there) {
            // What aya takes for its own it takes away.
            drop(self.attached());
        }
        if self.spot.made && filters::is_clsact_empty(self.spot.index).is_ok_and(|empty| empty) {
            let _ = filters::remove_clsact(self.spot.index);
        }
    }
}

fn fd(program: &SchedClassifier) -> io::Result<&aya::programs::ProgramFd> {
    program.fd().map_err(io::Error::other)
}

/// The number of the error that the kernel answered with.
fn number(error: &TcError) -> Option<i32> {
    match error {
        TcError::NetlinkError(error) => error.raw_os_error(),
        TcError::IoError(error) => error.raw_os_error(),
        TcError::NulError(_)
        | TcError::AlreadyAttached
        | TcError::InvalidTcxAttach(_)
        | TcError::InvalidLinkOperation => None,
    }
}

/// Whether the kernel does not know links of TC programs.
pub(super) fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_was_kept_is_found_again_by_its_label() {
        let fd = || OwnedFd::from(File::open("/dev/null").unwrap());
        let spot = Spot { index: 7, priority: 61_000, handle: 1, made: true };
        for kept in [KeptProgram::Link(fd()), KeptProgram::Filter(spot, fd())] {
            let label = kept.label();
            assert_eq!(KeptProgram::from_label(&label, fd()).unwrap().label(), label);
        }
        for label in ["", "link.1", "filter.1.2.3", "filter.1.70000.3.1", "filter.1.2.3.x"] {
            assert!(KeptProgram::from_label(label, fd()).is_none(), "{label}");
        }
    }
}
