//! What a database has beside tables: schemas, views, sequences, comments, routines.
//!
//! To the store an object is a kind, a name and a text that only its owner reads. Objects are created, replaced and
//! dropped by transactions, together with tables and rows: they are in the commit's log record, in the manifest, and in
//! the [`Catalog`](crate::Catalog) of every view. Of two transactions that change one object, the first to commit wins.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Names an object for ever. Objects and tables are numbered together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObjectId(pub u64);

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// A name space for tables, views and sequences. Its own schema name is empty.
    Schema,
    /// A query with a name.
    View,
    /// A source of numbers; its state is kept apart, see [`SequenceSpec`](crate::SequenceSpec).
    Sequence,
    /// A remark on something.
    Comment,
    /// A function or procedure. Its name has the types of its parameters in it.
    Routine,
}

impl ObjectKind {
    /// Whether objects of this kind share their names with tables.
    pub fn is_relation(self) -> bool {
        matches!(self, ObjectKind::View | ObjectKind::Sequence)
    }
}

/// An object as the catalog knows it; also its durable form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectDef {
    /// Its identity.
    pub id: ObjectId,
    /// What it is.
    pub kind: ObjectKind,
    /// The schema it belongs to; empty for schemas.
    pub schema_name: String,
    /// Its name there.
    pub name: String,
    /// All else, in a form of its owner's.
    pub definition: String,
}

/// All objects at one moment.
#[derive(Debug, Default, Clone)]
pub(crate) struct Objects {
    by_id: BTreeMap<ObjectId, Arc<ObjectDef>>,
    by_name: BTreeMap<(ObjectKind, String, String), ObjectId>,
}

impl Objects {
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<ObjectDef>> {
        self.by_id.values()
    }

    pub(crate) fn get(&self, id: ObjectId) -> Option<&Arc<ObjectDef>> {
        self.by_id.get(&id)
    }

    pub(crate) fn find(&self, kind: ObjectKind, schema: &str, name: &str) -> Option<&Arc<ObjectDef>> {
        let id = self.by_name.get(&(kind, schema.to_owned(), name.to_owned()))?;
        self.by_id.get(id)
    }

    /// Adds an object, in the place of one with the same id.
    pub(crate) fn put(&mut self, object: Arc<ObjectDef>) {
        self.remove(object.id);
        self.by_name.insert((object.kind, object.schema_name.clone(), object.name.clone()), object.id);
        self.by_id.insert(object.id, object);
    }

    pub(crate) fn remove(&mut self, id: ObjectId) {
        let Some(object) = self.by_id.remove(&id) else { return };
        let name = (object.kind, object.schema_name.clone(), object.name.clone());
        // One transaction may give the name to another object, which may come first when its changes are put in place.
        if self.by_name.get(&name) == Some(&id) {
            self.by_name.remove(&name);
        }
    }
}

/// The object changes of a transaction: what each object is to be, `None` for gone.
pub(crate) type ObjectChanges = BTreeMap<ObjectId, Option<Arc<ObjectDef>>>;
