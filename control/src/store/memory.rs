//! A store that forgets: for tests, and to see what a full disk does.

use std::path::PathBuf;

use super::{Change, Kept, Store, StoreError};

/// Records in memory.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    kept: Kept,
    /// Whether changes are refused.
    pub is_full: bool,
}

impl Store for Memory {
    fn load(&self) -> Result<Kept, StoreError> {
        Ok(self.kept.clone())
    }

    fn commit(&mut self, changes: &[Change]) -> Result<u64, StoreError> {
        if self.is_full {
            return Err(StoreError::Unwritable { path: PathBuf::from("memory"), reason: "it is full".to_owned() });
        }
        for change in changes {
            match change {
                Change::Put(key, value) => self.kept.records.insert(key.clone(), value.clone()),
                Change::Delete(key) => self.kept.records.remove(key),
            };
        }
        self.kept.revision += 1;
        Ok(self.kept.revision)
    }
}
