//! What a routine has looked up in the catalog, kept for as long as names mean the same.

use std::ops::Deref;
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
    first: OnceLock<T>,
    latest: RwLock<Option<Arc<T>>>,
}

/// What a slot has. Nobody counts who uses the first value, which is nearly always the one: all cores would count in one place.
pub(crate) enum Held<'s, T> {
    First(&'s T),
    Later(Arc<T>),
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Held::First(value) => value,
            Held::Later(value) => value,
        }
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Slot { first: OnceLock::new(), latest: RwLock::default() }
    }
}

impl<T> Slot<T> {
    /// The value, if there is one that fits.
    pub(crate) fn get(&self, fits: impl Fn(&T) -> bool) -> Option<Held<'_, T>> {
        match self.first.get() {
            Some(first) if fits(first) => return Some(Held::First(first)),
            Some(_) => {}
            None => return None,
        }
        self.latest.read().as_ref().filter(|latest| fits(latest)).map(|latest| Held::Later(Arc::clone(latest)))
    }

    /// The first value, if that fits: it mostly does.
    pub(crate) fn first(&self, fits: impl Fn(&T) -> bool) -> Option<&T> {
        self.first.get().filter(|first| fits(first))
    }

    /// Keeps a value.
    pub(crate) fn put(&self, value: T) -> Held<'_, T> {
        let mut value = Some(value);
        let first = self.first.get_or_init(|| value.take().expect("it is taken once"));
        match value {
            None => Held::First(first),
            Some(value) => {
                let value = Arc::new(value);
                *self.latest.write() = Some(Arc::clone(&value));
                Held::Later(value)
            }
        }
    }
}
