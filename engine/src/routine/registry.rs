//! The routines of a database, loaded from the catalog once and found by name.
//!
//! An index belongs to one catalog, compared by pointer. When the catalog changes, routines whose definition is the same
//! object are taken over, so that they are compiled once for as long as they exist.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rustydb_storage::{Catalog, ObjectId, ObjectKind};

use super::definition::Routine;
use super::language::Language;
use crate::Result;
use crate::sql::context::StatementContext;

/// The languages of a database, and its routines as far as they have been asked for.
#[derive(Debug)]
pub(crate) struct Routines {
    pub(crate) languages: Vec<Arc<dyn Language>>,
    index: Mutex<Option<Arc<Index>>>,
}

/// The routines of one catalog.
#[derive(Debug)]
pub(crate) struct Index {
    catalog: Arc<Catalog>,
    by_id: HashMap<ObjectId, Arc<Loaded>>,
    by_name: HashMap<String, Vec<Arc<Loaded>>>,
}

/// A routine of the catalog; one that cannot be loaded (its type is gone) fails when it is called.
#[derive(Debug)]
pub(crate) struct Loaded {
    object: Arc<rustydb_storage::ObjectDef>,
    name: String,
    routine: Result<Arc<Routine>>,
}

impl Routines {
    pub(crate) fn new(languages: Vec<Arc<dyn Language>>) -> Self {
        Routines { languages, index: Mutex::default() }
    }

    /// Whether there are routines at all.
    pub(crate) fn is_empty(&self, context: &StatementContext) -> bool {
        self.index(context).by_id.is_empty()
    }

    fn index(&self, context: &StatementContext) -> Arc<Index> {
        let catalog = context.view().catalog();
        let before = self.index.lock().clone();
        if let Some(index) = &before
            && Arc::ptr_eq(&index.catalog, catalog)
        {
            return Arc::clone(index);
        }
        let mut index = Index { catalog: Arc::clone(catalog), by_id: HashMap::new(), by_name: HashMap::new() };
        for object in catalog.objects().filter(|object| object.kind == ObjectKind::Routine) {
            // A row type among the parameters may have changed with its table.
            let known = before.as_ref().and_then(|index| index.by_id.get(&object.id));
            let known = known.filter(|loaded| Arc::ptr_eq(&loaded.object, object) && !loaded.depends_on_tables());
            let loaded = known.cloned().unwrap_or_else(|| {
                let routine = Routine::new(context, object, &self.languages).map(Arc::new);
                let name = object.name.split('(').next().unwrap_or_default().to_owned();
                Arc::new(Loaded { object: Arc::clone(object), name, routine })
            });
            index.by_name.entry(loaded.name.clone()).or_default().push(Arc::clone(&loaded));
            index.by_id.insert(object.id, loaded);
        }
        let index = Arc::new(index);
        *self.index.lock() = Some(Arc::clone(&index));
        index
    }

    /// The routines a name may mean, in the first schema that has any.
    pub(crate) fn find(
        &self,
        context: &StatementContext,
        schema: Option<&str>,
        name: &str,
        procedures: bool,
    ) -> Result<Vec<Arc<Routine>>> {
        let index = self.index(context);
        let Some(named) = index.by_name.get(name) else { return Ok(Vec::new()) };
        let schemas: Vec<&str> = match schema {
            Some(schema) => vec![schema],
            None => context.search_path().iter().map(String::as_str).collect(),
        };
        for schema in schemas {
            let mut found = Vec::new();
            for loaded in named.iter().filter(|loaded| loaded.object.schema_name == schema) {
                let routine = loaded.routine.clone()?;
                if routine.definition.is_procedure == procedures {
                    found.push(routine);
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }
}

impl Loaded {
    fn depends_on_tables(&self) -> bool {
        match &self.routine {
            Ok(routine) => {
                let of_parameters =
                    routine.source.parameters.iter().any(|parameter| parameter.sql_type.shape().is_some());
                of_parameters || routine.result.shape().is_some()
            }
            Err(_) => true,
        }
    }
}
