//! What outlives the process: every change is in the store before anybody is told of it.
//!
//! A veth pair cannot be made or taken away in one step with a change to the store. So it is
//! noted beforehand that there may be one which no endpoint has, and the next start looks.

use super::{Daemon, host_ports};
use crate::{
    causes::chain,
    desired::{BadRecord, Desired, Records},
    netlink,
    store::{self, Change, Kept, Store, StoreError},
};

/// Why what was kept cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be understood.
    #[error("the store, revision {revision}")]
    Record {
        /// How many commits it has had.
        revision: u64,
        /// Which part.
        source: BadRecord,
    },
}

/// Begins the keys of notes: of pairs that no endpoint may have.
const NOTE: &str = "pair/";

/// Adds what `store` keeps to `desired`, and takes away pairs of changes that were never finished.
///
/// # Errors
/// [`RestoreError`]
pub fn restore(desired: &mut Desired, store: &mut dyn Store) -> Result<(), RestoreError> {
    let Kept { revision, records } = store.load()?;
    let (notes, records): (Records, Records) = records.into_iter().partition(|(key, _)| key.starts_with(NOTE));
    let (hosts, records): (Records, Records) = records.into_iter().partition(|(key, _)| host_ports::is_key(key));
    desired.add_records(&records).map_err(|source| RestoreError::Record { revision, source })?;
    host_ports::remove_old(hosts.keys(), desired, store)?;
    for key in notes.into_keys() {
        let interface = key.trim_start_matches(NOTE);
        tracing::info!(interface, "left by a change that was not finished");
        if let Err(error) = netlink::remove_pair(interface) {
            tracing::warn!(interface, %error, "removing");
            continue;
        }
        store.commit(&[Change::Delete(key)])?;
    }
    Ok(())
}

/// Notes that the pair `interface` may be there without an endpoint.
pub(super) fn note(interface: &str) -> Change {
    Change::Put(format!("{NOTE}{interface}"), String::new())
}

/// Takes the note back.
pub(super) fn forget(interface: &str) -> Change {
    Change::Delete(format!("{NOTE}{interface}"))
}

impl Daemon {
    /// Has `next` be what the next start finds, with `notes` made in the same step.
    pub(super) fn save(&mut self, next: &Desired, notes: &[Change]) -> Result<(), StoreError> {
        let mut changes = store::difference(&self.desired.records(), &next.records());
        changes.extend_from_slice(notes);
        if changes.is_empty() { Ok(()) } else { self.store.commit(&changes).map(drop) }
    }

    /// Takes away the veth pair that `interface` is the end of, and then the note of it. What
    /// fails here is done by the next start.
    pub(super) fn remove_pair(&mut self, interface: &str) {
        match netlink::remove_pair(interface) {
            Ok(()) => self.forget_pair(interface),
            Err(error) => tracing::warn!(interface, %error, "removing"),
        }
    }

    /// Takes back the note of a pair that is not there.
    pub(super) fn forget_pair(&mut self, interface: &str) {
        if let Err(error) = self.store.commit(&[forget(interface)]) {
            tracing::warn!(interface, error = chain(&error), "forgetting");
        }
    }
}
