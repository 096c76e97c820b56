//! The store in a file of this host: crash-safe, one writer, nothing else needed.
//!
//! Every commit is synced to the disk. Every page has a checksum, all of which are verified when
//! the file is opened. A file comes into being under another name and is renamed when it is
//! whole, so one that is empty or short has been damaged, and is never taken for a new one.
//!
//! A page with a wrong checksum makes redb go back to the commit before, as after a power failure
//! amid a commit. That must not happen in silence to a commit that was acknowledged: the number
//! of the last one is noted beside the file, after the commit, so that the note is never ahead of
//! a file that is whole.

use std::{
    fmt::Display,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use redb::{Builder, Database, Error, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Change, Kept, Store, StoreError};
use crate::desired::Records;

/// What is kept.
const RECORDS: TableDefinition<'_, &str, &str> = TableDefinition::new("records");
/// What has to be known of it.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
/// In [`ABOUT`]: how records and keys are to be understood.
const SCHEMA: &str = "schema";
/// In [`ABOUT`]: how many commits there were.
const REVISION: &str = "revision";
/// The schema that this code writes.
const KNOWN_SCHEMA: u64 = 1;
/// Some hundred pages: what is kept is small, and read at the start only.
const CACHE: usize = 1 << 20;

/// A store in a file.
#[derive(Debug)]
pub struct Embedded {
    path: PathBuf,
    /// None only while it is opened anew after an error, and when that has failed.
    database: Option<Database>,
    /// Where the last revision is noted.
    note: Option<File>,
    lost: u64,
}

impl Embedded {
    /// Opens the store at `path`, or makes an empty one where there is no file.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] and [`StoreError::Newer`]
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let unreadable = |error: &dyn Display| unreadable(path, error);
        let note = path.with_extension("revision");
        if !path.try_exists().map_err(|error| unreadable(&error))? {
            // What it says is of a file that somebody took away.
            let _ = fs::remove_file(&note);
            create(path).map_err(|error| unreadable(&error))?;
        }
        let mut this = Self { path: path.to_owned(), database: Some(database(path)?), note: None, lost: 0 };
        match this.load_about(SCHEMA)? {
            KNOWN_SCHEMA => {}
            0 => return Err(unreadable(&"it does not say which schema it has")),
            found => return Err(StoreError::Newer { path: path.to_owned(), found, known: KNOWN_SCHEMA }),
        }
        let revision = this.load_about(REVISION)?;
        // One that cannot be read says nothing.
        let noted = fs::read_to_string(&note).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(revision);
        this.lost = noted.saturating_sub(revision);
        let options = File::options().write(true).create(true).truncate(false).open(&note);
        this.note =
            options.inspect_err(|error| tracing::warn!(path = %note.display(), %error, "noting revisions")).ok();
        this.note_revision(revision);
        Ok(this)
    }

    /// Commits that were acknowledged once and were not in the file when it was opened: it has
    /// been damaged, and what it has now is what was before them.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn note_revision(&self, revision: u64) {
        // Of one length, so that whoever is killed amid this leaves no other number behind.
        let noted = self.note.as_ref().map(|note| note.write_all_at(format!("{revision:020}\n").as_bytes(), 0));
        if let Some(Err(error)) = noted {
            tracing::warn!(path = %self.path.display(), %error, "noting the revision");
        }
    }

    fn database(&self) -> Result<&Database, StoreError> {
        self.database.as_ref().ok_or_else(|| unreadable(&self.path, &"it could not be opened again after an error"))
    }

    fn load_about(&self, key: &str) -> Result<u64, StoreError> {
        let read = || -> Result<u64, Error> {
            let Some(database) = &self.database else { return Err(Error::DatabaseClosed) };
            let about = database.begin_read()?.open_table(ABOUT)?;
            Ok(about.get(key)?.map_or(0, |value| value.value()))
        };
        read().map_err(|error| unreadable(&self.path, &error))
    }
}

impl Store for Embedded {
    fn load(&self) -> Result<Kept, StoreError> {
        let database = self.database()?;
        let read = || -> Result<Records, Error> {
            let table = database.begin_read()?.open_table(RECORDS)?;
            let mut records = Records::new();
            for record in table.iter()? {
                let (key, value) = record?;
                records.insert(key.value().to_owned(), value.value().to_owned());
            }
            Ok(records)
        };
        let records = read().map_err(|error| unreadable(&self.path, &error))?;
        Ok(Kept { revision: self.load_about(REVISION)?, records })
    }

    fn commit(&mut self, changes: &[Change]) -> Result<u64, StoreError> {
        if self.database.is_none() {
            self.database = Some(database(&self.path)?);
        }
        let written = write(self.database()?, changes).map_err(|error| {
            // After an error of the disk the database takes nothing until it is opened anew.
            drop(self.database.take());
            self.database = database(&self.path).inspect_err(|error| tracing::error!(%error, "after an error")).ok();
            StoreError::Unwritable { path: self.path.clone(), reason: error.to_string() }
        });
        written.inspect(|&revision| self.note_revision(revision))
    }
}

fn write(database: &Database, changes: &[Change]) -> Result<u64, Error> {
    let transaction = database.begin_write()?;
    let revision = {
        let mut records = transaction.open_table(RECORDS)?;
        for change in changes {
            match change {
                Change::Put(key, value) => records.insert(key.as_str(), value.as_str())?,
                Change::Delete(key) => records.remove(key.as_str())?,
            };
        }
        let mut about = transaction.open_table(ABOUT)?;
        let revision = about.get(REVISION)?.map_or(0, |value| value.value()) + 1;
        about.insert(REVISION, revision)?;
        revision
    };
    transaction.commit()?;
    Ok(revision)
}

/// Opens the file at `path`, with all its checksums verified.
fn database(path: &Path) -> Result<Database, StoreError> {
    let length = fs::metadata(path).map_err(|error| unreadable(path, &error))?.len();
    if length == 0 {
        return Err(unreadable(path, &"it is empty, and has not been so when it was made"));
    }
    let opened = Builder::new().set_cache_size(CACHE).set_check_integrity_on_open(true).open(path);
    opened.map_err(|error| unreadable(path, &error))
}

/// Makes an empty store at `path`, in one step.
fn create(path: &Path) -> Result<(), Error> {
    let draft = path.with_extension("new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let database = Builder::new().set_cache_size(CACHE).create(&draft)?;
    let transaction = database.begin_write()?;
    transaction.open_table(RECORDS)?;
    transaction.open_table(ABOUT)?.insert(SCHEMA, KNOWN_SCHEMA)?;
    transaction.commit()?;
    drop(database);
    File::open(&draft)?.sync_all()?;
    fs::rename(&draft, path)?;
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn unreadable(path: &Path, reason: &dyn Display) -> StoreError {
    StoreError::Unreadable { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    fn put(key: &str, value: &str) -> Change {
        Change::Put(key.to_owned(), value.to_owned())
    }

    /// A store with one hundred records in a directory of its own, and the last two states of it.
    fn filled() -> (tempfile::TempDir, PathBuf, [Kept; 2]) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let mut store = Embedded::open(&path).unwrap();
        let all: Vec<Change> = (0..99).map(|number| put(&format!("network/{number}"), &"x".repeat(300))).collect();
        store.commit(&all).unwrap();
        let before = store.load().unwrap();
        store.commit(&[put("network/99", "last")]).unwrap();
        let states = [before, store.load().unwrap()];
        assert_eq!(states[1].records.len(), 100);
        (directory, path, states)
    }

    /// What is said when the file at `path` is opened and read.
    fn read(path: &Path) -> Result<Kept, String> {
        Embedded::open(path).and_then(|store| store.load()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_kept_is_there_when_it_is_opened_again() {
        let (_directory, path, [_, last]) = filled();
        assert_eq!(read(&path).unwrap(), last);
    }

    #[test]
    fn a_file_that_was_cut_short_is_reported_with_its_name() {
        let (directory, path, states) = filled();
        let whole = fs::read(&path).unwrap();
        let lengths = [0, 1, 100, 511, 512, 4095, 4096, 8192, 65_536, whole.len() / 2, whole.len() - 1];
        for length in lengths.into_iter().filter(|&length| length < whole.len()) {
            let copy = directory.path().join("short.redb");
            fs::write(&copy, &whole[..length]).unwrap();
            match read(&copy) {
                Err(error) => assert!(error.contains("short.redb"), "{error}"),
                Ok(kept) => assert!(states.contains(&kept), "{length} bytes were taken for revision {}", kept.revision),
            }
        }
        fs::write(&path, b"").unwrap();
        assert!(read(&path).unwrap_err().ends_with("it is empty, and has not been so when it was made"));
    }

    #[test]
    fn a_flipped_bit_is_repaired_or_reported_and_never_read() {
        let (directory, path, states) = filled();
        let whole = fs::read(&path).unwrap();
        let copy = directory.path().join("flipped.redb");
        let (mut reported, mut intact) = (0, 0);
        // Some of the head, where everything matters, and some of everything else.
        let places = (0..400).chain((400..whole.len()).step_by(whole.len() / 300));
        for (turn, place) in places.enumerate() {
            fs::write(&copy, &whole).unwrap();
            let flipped = [whole[place] ^ (1 << (turn % 8))];
            fs::OpenOptions::new().write(true).open(&copy).unwrap().write_all_at(&flipped, place as u64).unwrap();
            match catch_unwind(|| read(&copy)).unwrap() {
                Ok(kept) => {
                    assert!(states.contains(&kept), "byte {place} gave revision {}", kept.revision);
                    intact += 1;
                }
                Err(error) => {
                    assert!(error.contains("flipped.redb"), "{error}");
                    reported += 1;
                }
            }
        }
        assert!(reported > 0 && intact > 0, "{reported} reported, {intact} intact");
    }

    #[test]
    fn a_commit_that_the_file_has_lost_is_missed_and_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let (path, before) = (directory.path().join("store.redb"), directory.path().join("before"));
        let commit = |key: &str| Embedded::open(&path).unwrap().commit(&[put(key, "x")]).unwrap();
        commit("network/1");
        fs::copy(&path, &before).unwrap();
        commit("network/2");
        commit("network/3");
        assert_eq!(Embedded::open(&path).unwrap().lost(), 0);
        fs::copy(&before, &path).unwrap();
        let store = Embedded::open(&path).unwrap();
        assert_eq!((store.lost(), store.load().unwrap().records.len()), (2, 1));
        drop(store);
        assert_eq!(Embedded::open(&path).unwrap().lost(), 0, "told once");
        commit("network/4");
        fs::remove_file(&path).unwrap();
        assert_eq!(Embedded::open(&path).unwrap().lost(), 0, "one that is new has lost nothing");
    }

    #[test]
    fn a_newer_schema_and_a_missing_one_are_refused() {
        let (_directory, path, _) = filled();
        let set = |schema: Option<u64>| {
            let database = database(&path).unwrap();
            let transaction = database.begin_write().unwrap();
            match schema {
                Some(schema) => drop(transaction.open_table(ABOUT).unwrap().insert(SCHEMA, schema).unwrap()),
                None => drop(transaction.open_table(ABOUT).unwrap().remove(SCHEMA).unwrap()),
            }
            transaction.commit().unwrap();
        };
        set(Some(2));
        assert!(read(&path).unwrap_err().ends_with("store.redb has schema 2, and this vxlane knows 1 at most"));
        set(None);
        assert!(read(&path).unwrap_err().ends_with("it does not say which schema it has"));
    }

    #[test]
    fn something_that_is_no_store_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        fs::write(&path, "[underlay]\n".repeat(1000)).unwrap();
        assert!(read(&path).unwrap_err().contains("store.redb"), "{:?}", read(&path));
        assert!(Embedded::open(Path::new("/proc/no/such/store.redb")).is_err());
    }

    #[test]
    fn a_draft_that_was_never_finished_is_not_in_the_way() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("store.new"), b"half").unwrap();
        assert_eq!(read(&directory.path().join("store.redb")).unwrap(), Kept::default());
    }
}
