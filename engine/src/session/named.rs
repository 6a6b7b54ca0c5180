//! PREPARE, EXECUTE and DEALLOCATE: prepared statements by name, which a session keeps until its end.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::Expr;

use super::statement::Statement;
use super::transaction::TransactionState;
use super::{Completion, Shared, StatementResult};
use crate::dml::defaults::compile;
use crate::error::sqlstate;
use crate::prepared::Prepared;
use crate::sql::grammar::named::NamedStatement;
use crate::sql::route::{Routed, route};
use crate::sql::text::parse::parse_statement;
use crate::sql::types::column_type;
use crate::{Error, Result, Value};

/// As many statements as a session may keep.
const NAMED_MAX: usize = 1000;

/// The prepared statements of a session that have names.
#[derive(Debug, Default)]
pub(super) struct NamedStatements(BTreeMap<String, Named>);

#[derive(Debug, Clone)]
struct Named {
    prepared: Prepared,
    /// The types of its parameters: as declared, also of some that it does not name, or as the statement gives them.
    types: Vec<DataType>,
}

impl NamedStatements {
    fn find(&self, name: &str) -> Result<Named> {
        self.0.get(name).cloned().ok_or_else(|| missing(name))
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What EXECUTE of a name returns.
    pub(super) fn result_schema(&self, name: &str) -> Result<Option<SchemaRef>> {
        Ok(self.find(name)?.prepared.result_schema())
    }
}

fn missing(name: &str) -> Error {
    Error::new(sqlstate::UNDEFINED_PREPARED_STATEMENT, format!("prepared statement \"{name}\" does not exist"))
}

fn exists(name: &str) -> Error {
    Error::new(sqlstate::DUPLICATE_PREPARED_STATEMENT, format!("prepared statement \"{name}\" already exists"))
}

impl Shared {
    pub(super) async fn named(
        &self,
        transaction: &mut TransactionState,
        statement: &Statement<'_>,
        named: NamedStatement,
    ) -> Result<StatementResult> {
        let tag = named.tag();
        match named {
            NamedStatement::Prepare { name, types, text } => {
                if self.named.lock().0.contains_key(&name) {
                    return Err(exists(&name));
                }
                let parsed = parse_statement(&text)?;
                let routed = route(parsed.statement.clone())?;
                let plain = matches!(&routed, Routed::Query(_) | Routed::SelectAndLock(_) | Routed::Write(_));
                if !plain {
                    return Err(Error::unsupported("PREPARE of this statement")
                        .with_hint("Queries and statements that change rows can be prepared."));
                }
                let context = statement.context(self.view(transaction, statement).await?);
                let prepared = Prepared::new(text, parsed, routed, &context)?;
                let parameters = prepared.parameter_schema();
                let declared = types.iter().map(|declared| column_type(declared).map(|column| column.data_type));
                // There may be more of them than the statement names: EXECUTE has a value for each.
                let mut all = declared.collect::<Result<Vec<DataType>>>()?;
                all.extend(parameters.fields().iter().skip(all.len()).map(|field| field.data_type().clone()));
                let mut named = self.named.lock();
                if named.0.len() >= NAMED_MAX {
                    let message = format!("a session can have {NAMED_MAX} prepared statements");
                    return Err(Error::new(sqlstate::LIMIT_EXCEEDED, message));
                }
                // A transaction beside this one may have been faster.
                match named.0.entry(name) {
                    Entry::Occupied(other) => return Err(exists(other.key())),
                    Entry::Vacant(place) => place.insert(Named { prepared, types: all }),
                };
            }
            NamedStatement::Execute { name, values } => {
                let Named { prepared, types } = self.named.lock().find(&name)?;
                if values.len() != types.len() {
                    return Err(Error::syntax(format!("wrong number of parameters for prepared statement \"{name}\""))
                        .with_detail(format!("Expected {} parameters but got {}.", types.len(), values.len())));
                }
                let mut values = {
                    let context = statement.context(self.view(transaction, statement).await?);
                    let evaluate = |(value, data_type)| evaluate(&context, value, data_type);
                    values.into_iter().zip(&types).map(evaluate).collect::<Result<Vec<Value>>>()?
                };
                values.truncate(prepared.parameter_schema().fields().len());
                let routed = route(prepared.parsed().statement)?;
                let statement = statement.with_parameters(&values);
                return Box::pin(self.dispatch(transaction, &statement, routed)).await;
            }
            NamedStatement::Deallocate(None) => self.named.lock().clear(),
            NamedStatement::Deallocate(Some(name)) => {
                self.named.lock().0.remove(&name).ok_or_else(|| missing(&name))?;
            }
        }
        Ok(StatementResult::Done(Completion::new(tag)))
    }
}

/// The value of an expression without columns.
fn evaluate(context: &crate::sql::context::StatementContext, value: Expr, data_type: &DataType) -> Result<Value> {
    let one_row = RecordBatchOptions::new().with_row_count(Some(1));
    let nothing = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one_row)?;
    let value = compile(context, value, data_type)
        .map_err(|error| error.map_message(|text| text.replace("in a default", "as a value of EXECUTE")))?;
    let array = value.evaluate(&nothing)?.into_array(1)?;
    Ok(ScalarValue::try_from_array(&array, 0)?)
}
