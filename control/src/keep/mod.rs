//! What keeps interfaces attached while no daemon runs: descriptors, in other hands.
//!
//! The steering program stays on an interface while somebody has the descriptor of its link, and
//! a queue lives on in those of its socket and its frames. Whoever runs the daemon next gets them
//! back and goes on where the last one stopped. They are kept by the service manager where it
//! says that it would (`FDSTORE`), and else by a [small process of our own](hold).

mod held;
pub mod hold;
mod manager;
pub mod sessions;
mod wire;

use std::{
    collections::BTreeMap,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

pub use held::{Held, HeldPort, Names};
pub(crate) use held::{SESSIONS, SESSIONS6, STATIONS};
use hold::Holder;

/// Descriptors by name.
pub(crate) type Descriptors = BTreeMap<String, OwnedFd>;

/// Who keeps descriptors for us.
#[derive(Debug)]
pub enum Keeper {
    /// Nobody: what is ours goes when we go.
    Nobody,
    /// The service manager.
    Manager,
    /// A process of our own.
    Holder(Holder),
}

/// How long a holder that was started for one restart waits for the next daemon.
const RESTART: Duration = Duration::from_secs(60);

impl Keeper {
    /// Finds what an earlier daemon of the state directory `state` has left, and chooses who is
    /// to keep ours, for `patience` beyond our end.
    ///
    /// # Errors
    /// If a holder cannot be spoken to or started, or the service manager's descriptors are amiss.
    pub fn choose(state: &Path, patience: Duration) -> io::Result<(Self, Held)> {
        let mut descriptors = manager::inherited()?;
        let mut holder = Holder::connect(state)?;
        match holder.as_ref().map(Holder::given) {
            // Newer than the manager's, if there are both: it was started for a restart.
            Some(Ok(given)) => descriptors.extend(given),
            Some(Err(error)) => {
                tracing::warn!(%error, "the holder was just going");
                holder = None;
            }
            None => {}
        }
        let held = Held::of(descriptors);
        let keeper = match holder {
            Some(holder) if manager::is_offered() || patience.is_zero() => {
                holder.dismiss();
                if patience.is_zero() { Self::Nobody } else { Self::Manager }
            }
            Some(holder) => Self::Holder(holder),
            None if manager::is_offered() => Self::Manager,
            None if patience.is_zero() => Self::Nobody,
            None => Self::Holder(Holder::start(state, patience)?),
        };
        Ok((keeper, held))
    }

    /// One that hands over to the process that this one is about to become.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn for_restart(state: &Path) -> io::Result<Self> {
        Holder::start(state, RESTART).map(Self::Holder)
    }

    /// Has `fd` kept under `name`, in the place of what has been.
    ///
    /// # Errors
    /// If it cannot be handed over.
    pub fn put(&mut self, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        match self {
            Self::Nobody => Ok(()),
            Self::Manager => {
                manager::remove(name)?;
                manager::put(name, fd)
            }
            Self::Holder(holder) => holder.put(name, fd),
        }
    }

    /// Has what is kept under `name` kept no longer.
    ///
    /// # Errors
    /// If that cannot be said.
    pub fn remove(&mut self, name: &str) -> io::Result<()> {
        match self {
            Self::Nobody => Ok(()),
            Self::Manager => manager::remove(name),
            Self::Holder(holder) => holder.remove(name),
        }
    }

    /// Whether whatever is put now is kept.
    pub fn is_there(&self) -> bool {
        match self {
            Self::Nobody | Self::Manager => true,
            Self::Holder(holder) => wire::is_connected(holder),
        }
    }

    /// Has a holder end. What it had must be detached already.
    pub fn dismiss(self) {
        if let Self::Holder(holder) = self {
            holder.dismiss();
        }
    }
}
