//! Where what the API asked for outlives the process.
//!
//! A store keeps [records](crate::desired::Records), text under keys, and nothing of what they
//! mean. A change to it is made whole, and is on the disk when [`Store::commit`] returns.

mod embedded;
mod memory;

use std::path::PathBuf;

pub use embedded::Embedded;
pub use memory::Memory;

use crate::desired::Records;

/// Something that keeps records.
pub trait Store: Send {
    /// Everything that is kept.
    ///
    /// # Errors
    /// [`StoreError`], never an empty answer in the place of one that cannot be had.
    fn load(&self) -> Result<Kept, StoreError>;

    /// Makes `changes`, all or none, and returns the revision that this makes. They outlive a
    /// loss of power from then on.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    fn commit(&mut self, changes: &[Change]) -> Result<u64, StoreError>;
}

/// What a store keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// How many times it has changed.
    pub revision: u64,
    /// What is kept now.
    pub records: Records,
}

/// One change to what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Keeps a record, perhaps in the place of another one.
    Put(String, String),
    /// Keeps a record no longer.
    Delete(String),
}

/// What makes `after` of `before`.
pub fn difference(before: &Records, after: &Records) -> Vec<Change> {
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| Change::Delete(key.clone()));
    let new = after.iter().filter(|(key, value)| before.get(*key) != Some(value));
    gone.chain(new.map(|(key, value)| Change::Put(key.clone(), value.clone()))).collect()
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened or read.
    #[error("the store {}: {reason}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// In words.
        reason: String,
    },
    /// A later vxlane has written it.
    #[error("the store {} has schema {found}, and this vxlane knows {known} at most", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
        /// The last one known.
        known: u64,
    },
    /// It takes no changes.
    #[error("the store {} takes no changes: {reason}", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// In words.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(pairs: &[(&str, &str)]) -> Records {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn the_difference_is_what_has_to_be_put_and_deleted() {
        let (before, after) =
            (records(&[("a", "1"), ("b", "2"), ("c", "3")]), records(&[("b", "2"), ("c", "4"), ("d", "5")]));
        let put = |key: &str, value: &str| Change::Put(key.to_owned(), value.to_owned());
        assert_eq!(difference(&before, &after), [Change::Delete("a".to_owned()), put("c", "4"), put("d", "5")]);
        assert_eq!(difference(&after, &after), []);
    }

    #[test]
    fn both_stores_keep_what_is_put_and_count_revisions() {
        let directory = tempfile::tempdir().unwrap();
        let stores: [Box<dyn Store>; 2] =
            [Box::new(Memory::default()), Box::new(Embedded::open(&directory.path().join("s")).unwrap())];
        for mut store in stores {
            assert_eq!(store.load().unwrap(), Kept::default());
            let (first, second) = (records(&[("a", "1"), ("b", "2")]), records(&[("b", "3")]));
            assert_eq!(store.commit(&difference(&Records::new(), &first)).unwrap(), 1);
            assert_eq!(store.load().unwrap(), Kept { revision: 1, records: first.clone() });
            assert_eq!(store.commit(&difference(&first, &second)).unwrap(), 2);
            assert_eq!(store.load().unwrap(), Kept { revision: 2, records: second });
        }
    }
}
