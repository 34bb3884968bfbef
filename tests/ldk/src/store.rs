//! What LDK keeps: in files, or in memory and gone with the process.

use lightning::io::{Error, ErrorKind};
use lightning::util::persist::KVStoreSync;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// LDK's key-value store. Monitors are written by LDK itself, at each change of a channel.
pub type Store = Arc<dyn KVStoreSync + Send + Sync>;

/// The store in that folder, which need not be there yet; without one, a store in memory.
pub fn open(folder: Option<&Path>) -> Store {
    match folder {
        Some(folder) => Arc::new(crate::ldk::FilesystemStore::new(folder.into())),
        None => Arc::new(InMemory::default()),
    }
}

/// What was written under a key, if anything was.
pub fn stored(store: &Store, primary: &str, key: &str) -> Result<Option<Vec<u8>>, String> {
    match store.read(primary, "", key) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

type Key = (String, String, String);

/// A store for nodes that need not outlive their process.
#[derive(Default)]
pub struct InMemory(Mutex<BTreeMap<Key, Vec<u8>>>);

fn at(primary: &str, secondary: &str, key: &str) -> Key {
    (primary.into(), secondary.into(), key.into())
}

impl KVStoreSync for InMemory {
    fn read(&self, primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>, Error> {
        let kept = self.0.lock().unwrap();
        kept.get(&at(primary, secondary, key))
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "nothing there"))
    }

    fn write(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), Error> {
        let mut kept = self.0.lock().unwrap();
        kept.insert(at(primary, secondary, key), value);
        Ok(())
    }

    fn remove(&self, primary: &str, secondary: &str, key: &str, _: bool) -> Result<(), Error> {
        self.0.lock().unwrap().remove(&at(primary, secondary, key));
        Ok(())
    }

    fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, Error> {
        let kept = self.0.lock().unwrap();
        Ok(kept
            .keys()
            .filter(|(first, second, _)| first == primary && second == secondary)
            .map(|(_, _, key)| key.clone())
            .collect())
    }
}
