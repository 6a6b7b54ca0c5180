//! Whether a transaction may commit: against what others have committed since its snapshot.
//!
//! None of it changes anything. Rows are validated without a lock (`commit.rs` says why that is enough); the rest with
//! the store's shape to itself.

use std::sync::Arc;

use rustydb_txn::{Timestamp, Verdict, VersionState, judge_write};

use super::commit::{Commit, Structure};
use super::{Inner, Place, Version};
use crate::bulk::segment_duplicate;
use crate::catalog::{Catalog, TableDef, TableId};
use crate::error::{Error, Result};
use crate::index::unique_value;
use crate::objects::ObjectKind;
use crate::transaction::{TableWrites, duplicate_key};

impl Inner {
    /// Compares row changes with what is in place. Returns where the rows are that they replace or remove, in the order
    /// of the changes.
    pub(super) fn validate(&self, commit: &Commit, version: &Version) -> Result<Vec<Place>> {
        let snapshot = commit.snapshot.timestamp;
        let changed = self.sequencer.lock().changed_since(commit.writes.tables().map(|(table, _)| table), snapshot);
        let mut places = Vec::new();
        for ((table, writes), changed) in commit.writes.tables().zip(changed) {
            if commit.structure.created.iter().any(|created| created.id == table) {
                continue;
            }
            let Some(definition) = version.catalog.table(table) else {
                return Err(Error::Conflict { table: name_of(commit, table) });
            };
            let checked = commit.snapshot.version.catalog.table(table);
            if checked.is_none_or(|checked| !checked.accepts_the_same_rows(definition)) {
                return Err(Error::Conflict { table: definition.name.clone() });
            }
            // Its statements have looked for no rows that refer to theirs in tables that they did not know.
            let before = &commit.snapshot.version.catalog;
            if !Arc::ptr_eq(before, &version.catalog)
                && version.catalog.new_references(before, table).any(|reference| writes.may_end(definition, reference))
            {
                return Err(Error::Conflict { table: definition.name.clone() });
            }
            for (key, pending) in &writes.rows {
                // If nothing has happened since, a row that the snapshot did not show is not there now either.
                if pending.replaced.is_none() && (pending.row.is_none() || !changed) {
                    continue;
                }
                let located = version.locate(table, key, Timestamp::MAX)?;
                let current = match &located {
                    Some(located) => VersionState::Live(located.written),
                    None => VersionState::Absent,
                };
                match judge_write(pending.expectation(), current, snapshot) {
                    Verdict::Proceed => places.extend(located.map(|located| located.place)),
                    Verdict::Conflict => return Err(Error::Conflict { table: definition.name.clone() }),
                    Verdict::Duplicate => {
                        let row = pending.row.as_deref().unwrap_or_default();
                        let all: Vec<usize> = (0..definition.storage_schema().fields().len()).collect();
                        let row = definition.codec()?.rows.decode(&[row], &all)?;
                        return Err(duplicate_key(definition, None, &row, 0));
                    }
                }
            }
            if changed {
                self.validate_indexes(definition, writes, version)?;
            }
        }
        Ok(places)
    }

    /// Compares pending rows with what is in the table's unique indexes now, apart from rows the transaction replaces.
    /// An index may be younger than the rows, so that they have to prove that it can hold them.
    fn validate_indexes(&self, table: &TableDef, writes: &TableWrites, version: &Version) -> Result<()> {
        let codec = table.codec()?;
        let replaced = |key: &[u8]| writes.replaces(key);
        let mut entry = Vec::new();
        for (position, index) in table.indexes.iter().enumerate() {
            for row in writes.rows.values().filter_map(|pending| pending.row.as_deref()) {
                codec.indexes[position].encode_row(&codec.rows, row, &mut entry)?;
                if !index.unique {
                    continue;
                }
                let Some(value) = unique_value(index, &codec.indexes[position], &codec.rows, row)? else { continue };
                if version.holder(table, position, &value, Timestamp::MAX, replaced)?.is_some() {
                    let all: Vec<usize> = (0..table.storage_schema().fields().len()).collect();
                    return Err(duplicate_key(table, Some(index), &codec.rows.decode(&[row], &all)?, 0));
                }
            }
        }
        Ok(())
    }

    pub(super) fn validate_structure(&self, commit: &Commit, version: &Version) -> Result<()> {
        let Structure { created, dropped, altered, objects: _ } = &commit.structure;
        for table in altered {
            let (then, now) = (commit.snapshot.version.catalog.table(table.id), version.catalog.table(table.id));
            if !then.zip(now).is_some_and(|(then, now)| Arc::ptr_eq(then, now)) {
                return Err(Error::Conflict { table: table.name.clone() });
            }
        }
        let is_dropped = |id: TableId| dropped.iter().any(|table| table.id == id);
        for table in dropped {
            let (then, now) = (commit.snapshot.version.catalog.table(table.id), version.catalog.table(table.id));
            // One that is put in its place has the definition that the transaction knew.
            let is_replaced =
                created.iter().any(|other| other.schema_name == table.schema_name && other.name == table.name);
            let is_same = then.zip(now).is_some_and(|(then, now)| Arc::ptr_eq(then, now));
            if now.is_none() || (is_replaced && !is_same) {
                return Err(Error::Conflict { table: table.name.clone() });
            }
            let lets_go = |id: TableId| {
                let own = altered.iter().find(|other| other.id == id);
                own.is_some_and(|own| own.foreign_keys.iter().all(|foreign_key| foreign_key.parent != table.id))
            };
            let referring = version.catalog.referring_tables(table.id);
            let referring = referring.filter(|other| !is_dropped(other.id) && !lets_go(other.id));
            let dependents: Vec<String> = referring.map(|other| format!("table \"{}\"", other.name)).collect();
            if !dependents.is_empty() {
                return Err(Error::DependentObjects { table: table.name.clone(), dependents });
            }
        }
        for table in created.iter().chain(altered) {
            let taken = version.catalog.find(&table.schema_name, &table.name);
            let renamed = |id: TableId| altered.iter().any(|other| other.id == id);
            if taken.is_some_and(|taken| !is_dropped(taken.id) && !renamed(taken.id)) {
                return Err(Error::TableExists { schema: table.schema_name.clone(), name: table.name.clone() });
            }
            for foreign_key in &table.foreign_keys {
                let own = created.iter().any(|created| created.id == foreign_key.parent);
                if !own && (version.catalog.table(foreign_key.parent).is_none() || is_dropped(foreign_key.parent)) {
                    return Err(Error::Conflict { table: table.name.clone() });
                }
            }
        }
        Ok(())
    }

    /// Of two transactions that change one object the first wins, and no name may have two owners. A schema must stay as
    /// long as something is in it.
    pub(super) fn validate_objects(&self, commit: &Commit, version: &Version) -> Result<()> {
        let Structure { created, altered, dropped, objects } = &commit.structure;
        if objects.is_empty() && version.catalog.objects().next().is_none() {
            return Ok(());
        }
        let before = &commit.snapshot.version.catalog;
        let conflict = |name: &str| Error::Conflict { table: name.to_owned() };
        for (id, object) in objects {
            let (then, now) = (before.object(*id), version.catalog.object(*id));
            let same = match (then, now) {
                (None, None) => true,
                (Some(then), Some(now)) => Arc::ptr_eq(then, now),
                _ => false,
            };
            if !same {
                let name = object.as_ref().or(then).map(|object| object.name.as_str());
                return Err(conflict(name.unwrap_or_default()));
            }
        }
        let mut after = Catalog::clone(&version.catalog);
        dropped.iter().for_each(|table| after.remove(table.id));
        altered.iter().for_each(|table| after.replace(Arc::clone(table)));
        // All names that are given up are free before the first is taken: objects may swap theirs.
        objects.keys().for_each(|id| after.remove_object(*id));
        for object in objects.values().flatten() {
            if after.name_taken(object) {
                return Err(Error::ObjectExists { name: object.name.clone() });
            }
            after.put_object(Arc::clone(object));
        }
        for table in created {
            let taken = [ObjectKind::View, ObjectKind::Sequence]
                .map(|kind| after.find_object(kind, &table.schema_name, &table.name).is_some());
            if taken.contains(&true) {
                return Err(Error::TableExists { schema: table.schema_name.clone(), name: table.name.clone() });
            }
            after.add(Arc::clone(table));
        }
        let had_schema = |name: &str| before.find_object(ObjectKind::Schema, "", name).is_some();
        let names = after.tables().map(|table| table.schema_name.as_str());
        let names = names.chain(after.objects().map(|object| object.schema_name.as_str()));
        for name in names {
            if had_schema(name) && after.find_object(ObjectKind::Schema, "", name).is_none() {
                return Err(conflict(name));
            }
        }
        Ok(())
    }

    /// Compares bulk-loaded keys with what others committed since the snapshot.
    pub(super) async fn validate_staged(&self, commit: &Commit, version: &Version) -> Result<()> {
        let tables = || commit.writes.tables().map(|(table, _)| table);
        let changed = self.sequencer.lock().changed_since(tables(), commit.snapshot.timestamp);
        for ((table, writes), changed) in commit.writes.tables().zip(changed) {
            if !changed {
                continue;
            }
            let now = Timestamp::MAX - 1;
            let removed = |key: &[u8]| writes.replaces(key);
            for segment in &writes.staged {
                let counts = |row| !writes.is_removed(segment.meta.id, row);
                if !segment.table.has_hidden_key() {
                    let keys = segment.keys().await?;
                    let common = version.first_common_key(table, &keys, now, counts, removed).await?;
                    if let Some(row) = common {
                        return Err(segment_duplicate(segment, None, row).await?);
                    }
                }
                let Some(definition) = version.catalog.table(table) else { continue };
                for (position, index) in definition.indexes.iter().enumerate() {
                    // Building them also finds values that are too long for an index made meanwhile.
                    let postings = segment.load_postings(index.id, &definition.codec()?.indexes[position]).await?;
                    if index.unique {
                        let common =
                            version.first_common_value(definition, position, &postings, now, counts, removed).await?;
                        if let Some(row) = common {
                            return Err(segment_duplicate(segment, Some(index), row as usize).await?);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

pub(super) fn name_of(commit: &Commit, table: TableId) -> String {
    let version = &commit.snapshot.version;
    version.catalog.table(table).map_or_else(|| format!("number {}", table.0), |table| table.name.clone())
}
