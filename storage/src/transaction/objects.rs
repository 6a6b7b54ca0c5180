//! Creating, replacing and dropping objects in a transaction.

use std::sync::Arc;

use super::Transaction;
use crate::catalog::{IndexId, TableId};
use crate::error::{Error, Result};
use crate::objects::{ObjectDef, ObjectId, ObjectKind};

impl Transaction {
    /// Creates an object.
    ///
    /// # Errors
    /// `ObjectExists` if the name is taken: for views and sequences by a table, too.
    pub fn create_object(
        &mut self,
        kind: ObjectKind,
        schema_name: String,
        name: String,
        definition: String,
    ) -> Result<Arc<ObjectDef>> {
        let id = ObjectId(self.view.snapshot.store.new_table_id().0);
        self.put_object(ObjectDef { id, kind, schema_name, name, definition })
    }

    /// Gives an object another name, schema or definition.
    pub fn replace_object(
        &mut self,
        id: ObjectId,
        schema_name: String,
        name: String,
        definition: String,
    ) -> Result<Arc<ObjectDef>> {
        let kind = self.view.catalog.object(id).ok_or(Error::NoSuchObject)?.kind;
        self.put_object(ObjectDef { id, kind, schema_name, name, definition })
    }

    /// Drops an object; whatever depends on it is the caller's to know.
    pub fn drop_object(&mut self, id: ObjectId) -> Result<()> {
        if self.view.catalog.object(id).is_none() {
            return Err(Error::NoSuchObject);
        }
        Arc::make_mut(&mut self.view.catalog).remove_object(id);
        if self.view.snapshot.version.catalog.object(id).is_some() {
            self.structure.objects.insert(id, None);
        } else {
            self.structure.objects.remove(&id);
        }
        Ok(())
    }

    /// Gives an index another name.
    pub fn rename_index(&mut self, table: TableId, index: IndexId, name: String) -> Result<()> {
        let current = self.view.catalog.require(table)?;
        let mut indexes = current.indexes.clone();
        indexes.iter_mut().filter(|known| known.id == index).for_each(|known| known.name.clone_from(&name));
        let altered = current.altered(current.to_new(), indexes)?;
        self.replace_definition(altered);
        Ok(())
    }

    fn put_object(&mut self, object: ObjectDef) -> Result<Arc<ObjectDef>> {
        if self.view.catalog.name_taken(&object) {
            return Err(Error::ObjectExists { name: object.name });
        }
        let object = Arc::new(object);
        Arc::make_mut(&mut self.view.catalog).put_object(Arc::clone(&object));
        self.structure.objects.insert(object.id, Some(Arc::clone(&object)));
        Ok(object)
    }
}
