//! What a routine has looked up in the catalog, kept for as long as names mean the same.

use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use rustydb_engine::routine::Names;

/// What a routine is kept for at once: a transaction that changes tables sees another catalog than its neighbours, and a
/// session with temporary tables or options of its own has names of its own.
const KEPT: usize = 16;

/// Values by what names meant when they were made.
pub(crate) struct Linked<T> {
    recent: Mutex<Vec<(Names, Arc<T>)>>,
}

impl<T> Default for Linked<T> {
    fn default() -> Self {
        Linked { recent: Mutex::default() }
    }
}

impl<T> Linked<T> {
    /// The value for `names`, made if there is none.
    pub(crate) fn get<E>(&self, names: &Names, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let known = self.recent.lock().iter().find(|(known, _)| known == names).map(|(_, value)| Arc::clone(value));
        if let Some(value) = known {
            return Ok(value);
        }
        let made = Arc::new(make()?);
        let mut recent = self.recent.lock();
        if recent.len() >= KEPT {
            recent.remove(0);
        }
        recent.push((names.clone(), Arc::clone(&made)));
        Ok(made)
    }
}

/// Something that is made when it is first used, and made again when it no longer fits.
pub(crate) struct Slot<T> {
    first: OnceLock<Arc<T>>,
    latest: RwLock<Option<Arc<T>>>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Slot { first: OnceLock::new(), latest: RwLock::default() }
    }
}

impl<T> Slot<T> {
    /// The value, if there is one that fits.
    pub(crate) fn get(&self, fits: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        match self.first.get() {
            Some(first) if fits(first) => return Some(Arc::clone(first)),
            Some(_) => {}
            None => return None,
        }
        self.latest.read().as_ref().filter(|latest| fits(latest)).map(Arc::clone)
    }

    /// The first value, if that fits: it mostly does.
    pub(crate) fn first(&self, fits: impl Fn(&T) -> bool) -> Option<&T> {
        self.first.get().map(Arc::as_ref).filter(|first| fits(first))
    }

    /// Keeps a value.
    pub(crate) fn put(&self, value: T) -> Arc<T> {
        let value = Arc::new(value);
        if self.first.set(Arc::clone(&value)).is_err() {
            *self.latest.write() = Some(Arc::clone(&value));
        }
        value
    }
}
