//! Sequences in SQL: their definitions in the catalog, and the functions `nextval`, `currval`, `setval` and `lastval`.
//!
//! A definition is a catalog object and belongs to transactions; the numbers do not
//! ([`Store::sequence_next`](rustydb_storage::Store::sequence_next)). The functions know the session they are called in:
//! each statement gets them bound to its view and to what its session remembers.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use parking_lot::Mutex;
use rustydb_storage::{Catalog, ObjectDef, ObjectId, ObjectKind, SequenceSpec, SequenceState, Store};
use serde::{Deserialize, Serialize};

use crate::error::sqlstate;
use crate::sql::context::Environment;
use crate::sql::text::parse::relation_name;
use crate::{Error, Result};

/// What the catalog keeps of a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SequenceDefinition {
    /// `smallint`, `integer` or `bigint`.
    pub(crate) data_type: String,
    pub(crate) spec: SequenceSpec,
    /// The table and column it was made for: it goes with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<Owner>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) comment: Option<String>,
}

/// The column a sequence belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) table: u64,
    pub(crate) column: String,
    /// Whether it is the column's identity, and not just a default.
    pub(crate) identity: bool,
}

impl SequenceDefinition {
    pub(crate) fn of(object: &ObjectDef) -> Result<Self> {
        serde_json::from_str(&object.definition)
            .map_err(|error| Error::internal(format!("the definition of sequence \"{}\": {error}", object.name)))
    }

    pub(crate) fn text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::internal(format!("keeping a sequence: {error}")))
    }
}

/// What a session remembers of the sequences it has used.
#[derive(Debug, Default)]
pub(crate) struct SessionSequences {
    values: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    current: HashMap<ObjectId, i64>,
    last: Option<ObjectId>,
}

impl SessionSequences {
    /// Nothing is remembered any more.
    pub(crate) fn forget(&self) {
        *self.values.lock() = Used::default();
    }
}

/// The sequences as one statement of one session sees them.
#[derive(Clone)]
pub(crate) struct SequenceScope {
    pub(crate) store: Store,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) environment: Environment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Next,
    Current,
    Set,
    Last,
}

/// The function of this name, bound to `scope`.
pub(crate) fn function(name: &str, scope: impl FnOnce() -> SequenceScope) -> Option<Arc<ScalarUDF>> {
    let (operation, signature) = match name {
        "nextval" => (Operation::Next, Signature::any(1, Volatility::Volatile)),
        "currval" => (Operation::Current, Signature::any(1, Volatility::Volatile)),
        "setval" => (
            Operation::Set,
            Signature::one_of(
                vec![datafusion::logical_expr::TypeSignature::Any(2), datafusion::logical_expr::TypeSignature::Any(3)],
                Volatility::Volatile,
            ),
        ),
        "lastval" => (Operation::Last, Signature::nullary(Volatility::Volatile)),
        _ => return None,
    };
    Some(Arc::new(ScalarUDF::from(SequenceFunction { operation, signature, scope: scope() })))
}

/// Whether a function is one of these.
pub(crate) fn is_function(name: &str) -> bool {
    matches!(name, "nextval" | "currval" | "setval" | "lastval")
}

struct SequenceFunction {
    operation: Operation,
    signature: Signature,
    scope: SequenceScope,
}

impl fmt::Debug for SequenceFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for SequenceFunction {
    fn eq(&self, other: &Self) -> bool {
        self.operation == other.operation
            && Arc::ptr_eq(&self.scope.environment.sequences, &other.scope.environment.sequences)
    }
}

impl Eq for SequenceFunction {}

impl Hash for SequenceFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.operation.hash(state);
    }
}

impl ScalarUDFImpl for SequenceFunction {
    fn name(&self) -> &str {
        match self.operation {
            Operation::Next => "nextval",
            Operation::Current => "currval",
            Operation::Set => "setval",
            Operation::Last => "lastval",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        if self.scope.environment.only_planned {
            return Ok(ColumnarValue::Array(Arc::new(Int64Array::new_null(rows))));
        }
        let column = |index: usize| -> Result<ArrayRef> {
            let value =
                arguments.args.get(index).ok_or_else(|| Error::internal("a sequence function lacks a value"))?;
            Ok(value.clone().into_array(rows)?)
        };
        let values = match self.operation {
            Operation::Last => vec![Some(self.scope.last()?); rows],
            Operation::Next => self.scope.next_each(&names(&column(0)?)?)?,
            Operation::Current => {
                let names = names(&column(0)?)?;
                names
                    .iter()
                    .map(|name| name.as_deref().map(|name| self.scope.current(name)).transpose())
                    .collect::<Result<_>>()?
            }
            Operation::Set => {
                let (names, numbers) = (names(&column(0)?)?, cast(&column(1)?, &DataType::Int64)?);
                let called: BooleanArray = match arguments.args.len() {
                    3 => cast(&column(2)?, &DataType::Boolean)?.as_boolean().clone(),
                    _ => BooleanArray::from(vec![true; rows]),
                };
                let numbers: &Int64Array = numbers.as_primitive::<Int64Type>();
                let mut values = Vec::with_capacity(rows);
                for (row, name) in names.iter().enumerate() {
                    values.push(match name {
                        Some(name) if numbers.is_valid(row) && called.is_valid(row) => {
                            Some(self.scope.set(name, numbers.value(row), called.value(row))?)
                        }
                        _ => None,
                    });
                }
                values
            }
        };
        Ok(ColumnarValue::Array(Arc::new(Int64Array::from(values))))
    }
}

fn names(column: &ArrayRef) -> Result<Vec<Option<String>>> {
    let column = cast(column, &DataType::Utf8)?;
    Ok(column.as_string::<i32>().iter().map(|name| name.map(str::to_owned)).collect())
}

impl SequenceScope {
    fn find(&self, name: &str) -> Result<(&ObjectDef, SequenceSpec)> {
        let (schema, plain) = relation_name(name)?;
        let find = |schema: &str| self.catalog.find_object(ObjectKind::Sequence, schema, &plain);
        let found = self.environment.schemas(schema.as_deref()).find_map(find);
        let object = found
            .ok_or_else(|| Error::new(sqlstate::UNDEFINED_TABLE, format!("sequence \"{name}\" does not exist")))?;
        Ok((object, SequenceDefinition::of(object)?.spec))
    }

    /// The next value for each name: runs of one name are taken at once.
    fn next_each(&self, names: &[Option<String>]) -> Result<Vec<Option<i64>>> {
        let mut values = Vec::with_capacity(names.len());
        for run in names.chunk_by(|left, right| left == right) {
            let Some(Some(name)) = run.first() else {
                values.extend(run.iter().map(|_| None));
                continue;
            };
            let (object, spec) = self.find(name)?;
            let taken = self.store.sequence_next(object.id, &spec, run.len()).map_err(|error| match error {
                rustydb_storage::Error::SequenceExhausted { upwards } => {
                    let (what, value) = if upwards { ("maximum", spec.maximum) } else { ("minimum", spec.minimum) };
                    let message = format!("nextval: reached {what} value of sequence \"{}\" ({value})", object.name);
                    Error::new(sqlstate::SEQUENCE_LIMIT, message)
                }
                other => Error::from(other),
            })?;
            let mut used = self.environment.sequences.values.lock();
            used.last = Some(object.id);
            if let Some(last) = taken.last() {
                used.current.insert(object.id, *last);
            }
            values.extend(taken.into_iter().map(Some));
        }
        Ok(values)
    }

    fn current(&self, name: &str) -> Result<i64> {
        let (object, _) = self.find(name)?;
        self.environment.sequences.values.lock().current.get(&object.id).copied().ok_or_else(|| {
            let message = format!("currval of sequence \"{}\" is not yet defined in this session", object.name);
            Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, message)
        })
    }

    fn last(&self) -> Result<i64> {
        let used = self.environment.sequences.values.lock();
        let last = used.last.filter(|id| self.catalog.object(*id).is_some());
        last.and_then(|id| used.current.get(&id).copied()).ok_or_else(|| {
            Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, "lastval is not yet defined in this session")
        })
    }

    fn set(&self, name: &str, value: i64, called: bool) -> Result<i64> {
        let (object, spec) = self.find(name)?;
        if !(spec.minimum..=spec.maximum).contains(&value) {
            return Err(Error::new(
                sqlstate::NUMERIC_OUT_OF_RANGE,
                format!(
                    "setval: value {value} is out of bounds for sequence \"{}\" ({}..{})",
                    object.name, spec.minimum, spec.maximum
                ),
            ));
        }
        self.store.sequence_set(object.id, SequenceState { value, called })?;
        if called {
            self.environment.sequences.values.lock().current.insert(object.id, value);
        }
        Ok(value)
    }
}
