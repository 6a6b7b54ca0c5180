//! What names mean to a running routine, and so whether what was compiled is still good.

use std::sync::Arc;

use datafusion::catalog::Session;
use datafusion::config::ConfigOptions;
use rustydb_storage::Catalog;

use super::{Access, Execution};
use crate::ddl::temporary::TemporarySchema;
use crate::row_path::Origin;

/// What names mean to a routine: as long as it is the same, so are the tables, and what was compiled is good. Compared by
/// identity.
#[derive(Debug, Clone)]
pub struct Names {
    catalog: Arc<Catalog>,
    options: Arc<ConfigOptions>,
    search_path: Arc<[String]>,
    /// Names mean something else in a session that has temporary relations.
    temporary: Option<Arc<TemporarySchema>>,
}

impl PartialEq for Names {
    fn eq(&self, other: &Self) -> bool {
        other.are(&self.catalog, &self.options, &self.search_path, self.temporary.as_ref())
    }
}

impl Names {
    /// The time zone of the session.
    pub fn zone(&self) -> &str {
        zone_in(&self.options)
    }

    fn are(
        &self,
        catalog: &Arc<Catalog>,
        options: &Arc<ConfigOptions>,
        search_path: &Arc<[String]>,
        temporary: Option<&Arc<TemporarySchema>>,
    ) -> bool {
        Arc::ptr_eq(&self.catalog, catalog)
            && Arc::ptr_eq(&self.options, options)
            && (Arc::ptr_eq(&self.search_path, search_path) || self.search_path == *search_path)
            && match (&self.temporary, temporary) {
                (None, None) => true,
                (Some(own), Some(other)) => Arc::ptr_eq(own, other),
                _ => false,
            }
    }
}

fn zone_in(options: &ConfigOptions) -> &str {
    options.execution.time_zone.as_deref().unwrap_or("UTC")
}

impl Execution<'_> {
    /// The time zone of the session.
    pub fn zone(&self) -> &str {
        match &self.access {
            Access::Changing(changing) => zone_in(changing.options()),
            Access::Reading(context) => context.zone(),
        }
    }

    /// What names mean now.
    pub fn names(&self) -> Names {
        match &self.access {
            Access::Changing(changing) => Names {
                catalog: Arc::clone(changing.transaction().catalog()),
                options: Arc::clone(changing.options()),
                search_path: Arc::clone(changing.search_path()),
                temporary: changing.temporary().cloned(),
            },
            Access::Reading(context) => Names {
                catalog: Arc::clone(context.view().catalog()),
                options: Arc::clone(Session::config(context.as_ref()).options()),
                search_path: Arc::clone(context.search_path()),
                temporary: context.temporary_schema().cloned(),
            },
        }
    }

    /// Whether what was compiled for `origin`, without temporary relations in sight, is good here.
    pub(crate) fn means_origin(&self, origin: &Origin) -> bool {
        match &self.access {
            Access::Changing(changing) => {
                origin.is(changing.transaction().catalog(), changing.options(), changing.search_path())
            }
            Access::Reading(_) => false,
        }
    }

    /// Whether names still mean what they meant.
    pub fn means(&self, names: &Names) -> bool {
        match &self.access {
            Access::Changing(changing) => names.are(
                changing.transaction().catalog(),
                changing.options(),
                changing.search_path(),
                changing.temporary(),
            ),
            Access::Reading(context) => names.are(
                context.view().catalog(),
                Session::config(context.as_ref()).options(),
                context.search_path(),
                context.temporary_schema(),
            ),
        }
    }
}
