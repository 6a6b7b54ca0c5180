//! Views: queries with a name. A view is kept as its text, the names of its columns, and the search path it was created
//! with; it is planned anew wherever it is used.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{ObjectName, Query, Spanned, Statement as SqlStatement, Visit, Visitor};
use rustydb_storage::{Catalog, ObjectDef, ObjectKind, Transaction};
use serde::{Deserialize, Serialize};

use super::table::new_name;
use crate::dml::through_view::require_updatable;
use crate::error::sqlstate;
use crate::session::{Completion, Statement};
use crate::sql::context::StatementContext;
use crate::sql::declared::{Declaration, declared_columns, with_declarations};
use crate::sql::names::shown_name;
use crate::sql::plan::{plan_query, result_schema};
use crate::sql::route::{CheckOption, CreateViewStatement};
use crate::sql::text::parse::{ParsedStatement, fold, parse_statement, place, table_name};
use crate::sql::widths::check_table_width;
use crate::{Error, Result};

/// What the catalog keeps of a view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ViewDefinition {
    /// The query's text.
    pub(crate) query: String,
    pub(crate) columns: Vec<String>,
    /// What the query's own columns were called then, in the order of `columns`.
    outputs: Vec<String>,
    /// The columns' types, for those who ask the catalog.
    types: Vec<String>,
    /// How the columns are declared, if any of them is anyhow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    declared: Vec<BTreeMap<String, String>>,
    pub(crate) search_path: Vec<String>,
    /// The tables, views and sequences in it, by schema and name.
    pub(crate) relations: BTreeSet<(String, String)>,
    /// WITH CHECK OPTION.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) check: Option<CheckOption>,
    /// What COMMENT ON says: of the view under the empty name, of its columns under theirs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) comments: BTreeMap<String, String>,
}

impl ViewDefinition {
    pub(crate) fn of(object: &ObjectDef) -> Result<Self> {
        serde_json::from_str(&object.definition)
            .map_err(|error| Error::internal(format!("the definition of view \"{}\": {error}", object.name)))
    }

    /// Whether the query can still be planned and gives columns of the types it gave.
    pub(super) fn still_works(&self, context: &StatementContext) -> Result<bool> {
        let Ok(plan) = self.plan(&context.clone().within(&self.search_path)) else { return Ok(false) };
        let schema = result_schema(context, &plan);
        Ok(schema.fields().iter().map(|field| field.data_type().to_string()).eq(self.types.iter().cloned()))
    }

    /// The columns as the catalog shows them.
    pub(crate) fn fields(&self) -> Vec<Field> {
        let field = |(name, data_type): (&String, &String)| {
            Field::new(name, data_type.parse().unwrap_or(DataType::Utf8View), true)
        };
        let fields: Vec<Field> = self.columns.iter().zip(&self.types).map(field).collect();
        let declared = |declared: &BTreeMap<String, String>| declared.clone().into_iter().collect();
        let declared: Vec<Declaration> = self.declared.iter().map(declared).collect();
        with_declarations(&Schema::new(fields), &declared).fields().iter().map(|field| Field::clone(field)).collect()
    }

    /// What the columns were called in the query itself.
    pub(crate) fn outputs(&self) -> &[String] {
        &self.outputs
    }

    pub(crate) fn text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::internal(format!("keeping a view: {error}")))
    }

    /// The view's rows, under its own names. Columns that `*` has gained since it was created are left out.
    pub(crate) fn plan(&self, context: &StatementContext) -> Result<LogicalPlan> {
        let ParsedStatement::Sql(statement) = parse_statement(&self.query)?.statement else {
            return Err(Error::internal("a view that is no query"));
        };
        let SqlStatement::Query(query) = *statement else {
            return Err(Error::internal("a view that is no query"));
        };
        let plan = plan_query(context, *query)?;
        let mut list = Vec::with_capacity(self.columns.len());
        for (place, (name, output)) in self.columns.iter().zip(&self.outputs).enumerate() {
            let schema = plan.schema();
            let same = |index: &usize| shown_name(schema.field(*index).name()) == output;
            let found = Some(place).filter(|place| *place < schema.fields().len()).filter(same);
            let found = found.or_else(|| (0..schema.fields().len()).find(same)).ok_or_else(|| {
                Error::new(sqlstate::UNDEFINED_COLUMN, format!("column \"{output}\" of a view's query does not exist"))
            })?;
            let (relation, field) = schema.qualified_field(found);
            list.push(Expr::Column(Column::new(relation.cloned(), field.name())).alias(name));
        }
        Ok(LogicalPlanBuilder::from(plan).project(list)?.build()?)
    }
}

pub(crate) fn create_view(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    create: CreateViewStatement,
) -> Result<Completion> {
    let CreateViewStatement { name, temporary, or_replace, if_not_exists, columns, query, check } = create;
    let context = statement.context(transaction.view());
    let (schema, plain_name) = table_name(&name)?;
    let relations = relations_of(&context, &query)?;
    // What shows temporary rows is temporary itself.
    let temporary = temporary || relations.iter().any(|(schema, _)| super::temporary::is_temporary(schema));
    let in_place = |view: &&std::sync::Arc<ObjectDef>| {
        or_replace && super::temporary::is_temporary(&view.schema_name) == temporary
    };
    let existing = context.object(ObjectKind::View, schema.as_deref(), &plain_name).filter(in_place).cloned();
    let (schema_name, view_name) = match &existing {
        Some(view) => (view.schema_name.clone(), view.name.clone()),
        None => match new_name(&context, &name, if_not_exists, temporary)? {
            Some(names) => names,
            None => return Ok(Completion::new("CREATE VIEW")),
        },
    };
    if reaches(context.view().catalog(), &relations, &(schema_name.clone(), view_name.clone()))? {
        let message = format!("infinite recursion detected in view \"{view_name}\"");
        return Err(Error::new(sqlstate::INVALID_OBJECT_DEFINITION, message));
    }
    let text = query.to_string();
    let plan = plan_query(&context, *query)?;
    let outputs: Vec<String> = plan.schema().fields().iter().map(|field| shown_name(field.name()).to_owned()).collect();
    check_table_width(outputs.len())?;
    if columns.len() > outputs.len() {
        return Err(Error::syntax("CREATE VIEW specifies more column names than columns").at(place(name.span())));
    }
    let mut names: Vec<String> = columns.iter().map(fold).collect();
    names.extend(outputs[names.len()..].iter().cloned());
    if let Some(double) = names.iter().enumerate().find(|(place, name)| names[..*place].contains(name)) {
        let message = format!("column \"{}\" specified more than once", double.1);
        return Err(Error::new(sqlstate::DUPLICATE_COLUMN, message)
            .with_hint("Give the columns different names with AS, or in the view's list of columns."));
    }
    let search_path = context.search_path().to_vec();
    let types = result_schema(&context, &plan).fields().iter().map(|field| field.data_type().to_string()).collect();
    let declared: Vec<BTreeMap<String, String>> =
        declared_columns(&plan).into_iter().map(|declared| declared.into_iter().collect()).collect();
    let definition = ViewDefinition {
        query: text,
        columns: names,
        outputs,
        types,
        declared: if declared.iter().all(BTreeMap::is_empty) { Vec::new() } else { declared },
        search_path,
        relations,
        check,
        comments: BTreeMap::new(),
    };
    if check.is_some()
        && let Err(error) = require_updatable(context.view().catalog(), &view_name, &definition)
    {
        let message = "WITH CHECK OPTION is supported only on automatically updatable views";
        return Err(Error::unsupported(message).with_detail(error.detail().unwrap_or_default().to_owned()));
    }
    if let Some(view) = existing {
        let old = ViewDefinition::of(&view)?;
        let definition = ViewDefinition { comments: old.comments.clone(), ..definition };
        check_replacement(&context, &old, &definition)?;
        drop(context);
        transaction.replace_object(view.id, schema_name, view_name, definition.text()?)?;
    } else {
        drop(context);
        transaction.create_object(ObjectKind::View, schema_name, view_name, definition.text()?)?;
    }
    Ok(Completion::new("CREATE VIEW"))
}

/// A replaced view keeps its columns and their types; new ones may follow.
fn check_replacement(context: &StatementContext, old: &ViewDefinition, new: &ViewDefinition) -> Result<()> {
    let invalid = |message: String| Err(Error::new(sqlstate::INVALID_TABLE_DEFINITION, message));
    if new.columns.len() < old.columns.len() {
        return invalid("cannot drop columns from view".to_owned());
    }
    // The names in the old query are looked for where they were found then.
    let (old_plan, new_plan) = (old.plan(&context.clone().within(&old.search_path))?, new.plan(context)?);
    for (index, name) in old.columns.iter().enumerate() {
        if new.columns[index] != *name {
            let message = format!("cannot change name of view column \"{name}\" to \"{}\"", new.columns[index]);
            return invalid(message);
        }
        let (before, after) = (old_plan.schema().field(index).data_type(), new_plan.schema().field(index).data_type());
        if before != after {
            return invalid(format!("cannot change data type of view column \"{name}\""));
        }
    }
    Ok(())
}

/// The relations that a query names, as they are found now.
fn relations_of(context: &StatementContext, query: &Query) -> Result<BTreeSet<(String, String)>> {
    let mut named = NamedRelations::default();
    let _ = Visit::visit(query, &mut named);
    let mut relations = BTreeSet::new();
    for name in named.names {
        // A name of something else, a function, is found nowhere.
        let Ok((schema, name)) = table_name(&name) else { continue };
        if let Ok(table) = context.table(schema.as_deref(), &name) {
            relations.insert((table.schema_name.clone(), table.name.clone()));
        } else if let Some(view) = context.object(ObjectKind::View, schema.as_deref(), &name) {
            relations.insert((view.schema_name.clone(), view.name.clone()));
        }
    }
    Ok(relations)
}

/// The names of relations in a query, but for those that are meant for its common table expressions.
#[derive(Default)]
struct NamedRelations {
    names: Vec<ObjectName>,
    /// Of the queries around the current place, the outermost first: the names of their common table expressions, and how
    /// many of them are in sight.
    open: Vec<(Vec<String>, usize)>,
}

impl Visitor for NamedRelations {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        let names: Vec<String> = ctes.map(|cte| fold(&cte.alias.name)).collect();
        let recursive = query.with.as_ref().is_some_and(|with| with.recursive);
        let in_sight = if recursive { names.len() } else { 0 };
        self.open.push((names, in_sight));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.open.pop();
        // Those of common table expressions come before all other queries of a query, each before those that may name it.
        if let Some((names, in_sight)) = self.open.last_mut() {
            *in_sight = names.len().min(*in_sight + 1);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let plain = match relation.0.as_slice() {
            [part] => part.as_ident().map(fold),
            _ => None,
        };
        let is_cte = plain.is_some_and(|plain| {
            self.open.iter().any(|(names, in_sight)| names.iter().take(*in_sight).any(|name| *name == plain))
        });
        if !is_cte {
            self.names.push(relation.clone());
        }
        ControlFlow::Continue(())
    }
}

/// Whether a view is among `relations`, or behind one of them.
fn reaches(catalog: &Catalog, relations: &BTreeSet<(String, String)>, view: &(String, String)) -> Result<bool> {
    let mut waiting: Vec<(String, String)> = relations.iter().cloned().collect();
    let mut seen = BTreeSet::new();
    while let Some(relation) = waiting.pop() {
        if relation == *view {
            return Ok(true);
        }
        if seen.insert(relation.clone())
            && let Some(inner) = catalog.find_object(ObjectKind::View, &relation.0, &relation.1)
        {
            waiting.extend(ViewDefinition::of(inner)?.relations);
        }
    }
    Ok(false)
}

/// The views that name a relation.
pub(crate) fn views_on(catalog: &Catalog, schema: &str, name: &str) -> Result<Vec<std::sync::Arc<ObjectDef>>> {
    let relation = (schema.to_owned(), name.to_owned());
    let mut views = Vec::new();
    for view in catalog.objects().filter(|object| object.kind == ObjectKind::View) {
        if ViewDefinition::of(view)?.relations.contains(&relation) {
            views.push(std::sync::Arc::clone(view));
        }
    }
    Ok(views)
}
