//! A shared value whose inside other crates' builds need not look into.
//!
//! That a future may move between threads follows from everything it holds, and the compiler works it out field by field
//! for each function anew. A session holds a syntax tree of some five hundred types, DataFusion's session state and the
//! store; proving all of them `Send` again for every request handler took most of the flight crate's build. Behind a trait object
//! the proof is made once, where the value is put in.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// An `Arc<T>` whose `Send` and `Sync` do not depend on looking into `T`.
pub(crate) struct Opaque<T>(Arc<dyn Holds<T>>);

trait Holds<T>: Send + Sync {
    fn held(&self) -> &T;
}

impl<T: Send + Sync> Holds<T> for T {
    fn held(&self) -> &T {
        self
    }
}

impl<T: Send + Sync + 'static> Opaque<T> {
    pub(crate) fn new(value: T) -> Self {
        Opaque(Arc::new(value))
    }
}

impl<T: Send + Sync + 'static> From<Arc<T>> for Opaque<T> {
    fn from(value: Arc<T>) -> Self {
        Opaque(value)
    }
}

impl<T> Clone for Opaque<T> {
    fn clone(&self) -> Self {
        Opaque(Arc::clone(&self.0))
    }
}

impl<T> Deref for Opaque<T> {
    type Target = T;

    fn deref(&self) -> &T {
        (*self.0).held()
    }
}

impl<T: fmt::Debug> fmt::Debug for Opaque<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
