//! What the columns of a prepared statement depend on beside its text: whoever has told a client of them has to ask again
//! when that has changed.

use std::sync::{Arc, Weak};

use rustydb_storage::Catalog;

use super::Session;

/// What a session's statements found around them at one time.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// To be compared only: the tables may go, but no other catalog comes to lie in their place.
    catalog: Weak<Catalog>,
    search_path: Arc<[String]>,
    zone: Option<String>,
}

impl Session {
    /// What is around its statements now.
    pub fn surroundings(&self) -> Surroundings {
        let visible = self.shared.visible.lock();
        let catalog = match &visible.catalog {
            Some(own) => Arc::downgrade(own),
            None => Arc::downgrade(&self.shared.database.store().catalog()),
        };
        Surroundings {
            catalog,
            search_path: Arc::clone(&visible.settings.search_path),
            zone: visible.settings.config.options().execution.time_zone.clone(),
        }
    }

    /// Whether that is still so.
    pub fn is_in(&self, surroundings: &Surroundings) -> bool {
        let is_same = |catalog: &Arc<Catalog>| std::ptr::eq(Arc::as_ptr(catalog), surroundings.catalog.as_ptr());
        let visible = self.shared.visible.lock();
        let in_catalog = match &visible.catalog {
            Some(own) => is_same(own),
            None => is_same(&self.shared.database.store().catalog()),
        };
        in_catalog
            && visible.settings.search_path == surroundings.search_path
            && visible.settings.config.options().execution.time_zone == surroundings.zone
    }
}
