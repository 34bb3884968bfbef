//! What LDK wants to keep of LSPS: in memory, and gone with the process, as a client needs none of it.

use lightning::io::{Error, ErrorKind};
use lightning::util::persist::KVStoreSync;
use std::collections::BTreeMap;
use std::sync::Mutex;

type Key = (String, String, String);

/// LDK's key-value store.
#[derive(Default)]
pub struct Store(Mutex<BTreeMap<Key, Vec<u8>>>);

fn at(primary: &str, secondary: &str, key: &str) -> Key {
    (primary.into(), secondary.into(), key.into())
}

impl KVStoreSync for Store {
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
