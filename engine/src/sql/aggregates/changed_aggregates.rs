//! Aggregate functions of DataFusion's that are others in something: what all of them share.
//!
//! A sum that fails instead of wrapping around, a variance that forgets what has left a frame: each is DataFusion's own in a
//! [`Changed`], and what is other is a [`Change`], as for [scalar functions](crate::functions). An aggregate function
//! accumulates in three ways, of one group, of many, and over a frame that slides, and reads from one stage of an aggregation
//! what another way has written: whoever changes one of them looks at the others, and at the fields of the state.
//!
//! What the optimiser would make of the function inside, which knows nothing of the change, is not passed on: what a call is
//! simplified to, and what statistics tell of its result.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
    Signature,
};

/// What is other than in the function inside, which is `inner`.
pub(in crate::sql) trait Change: Debug + Eq + Hash + Send + Sync + 'static {
    /// Another signature.
    fn signature(&self) -> Option<&Signature> {
        None
    }

    /// Another type of the result, for arguments of these types.
    fn return_type(&self, _types: &[DataType]) -> Option<DataType> {
        None
    }

    fn state_fields(&self, inner: &AggregateUDF, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        inner.state_fields(arguments)
    }

    fn accumulator(&self, inner: &AggregateUDF, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        inner.accumulator(arguments)
    }

    fn sliding(&self, inner: &AggregateUDF, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        inner.create_sliding_accumulator(arguments)
    }

    /// Whether there is an accumulator of many groups.
    fn has_groups(&self, inner: &AggregateUDF, arguments: AccumulatorArgs) -> bool {
        inner.groups_accumulator_supported(arguments)
    }

    fn groups(&self, inner: &AggregateUDF, arguments: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        inner.create_groups_accumulator(arguments)
    }

    fn reversed(&self, inner: &AggregateUDF) -> ReversedUDAF {
        inner.reverse_udf()
    }

    /// What the order of the rows means to it. A function that can do without it has it as a help.
    fn order_sensitivity(&self, inner: &AggregateUDF) -> AggregateOrderSensitivity {
        inner.order_sensitivity()
    }
}

/// The function with a change.
pub(in crate::sql) fn changed(inner: Arc<AggregateUDF>, change: impl Change) -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(Changed { inner, change }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Changed<C> {
    inner: Arc<AggregateUDF>,
    change: C,
}

impl<C: Change> AggregateUDFImpl for Changed<C> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.change.signature().unwrap_or_else(|| self.inner.signature())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match self.change.return_type(types) {
            Some(other) => Ok(other),
            None => self.inner.return_type(types),
        }
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.change.state_fields(&self.inner, arguments)
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.change.accumulator(&self.inner, arguments)
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.change.sliding(&self.inner, arguments)
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs) -> bool {
        self.change.has_groups(&self.inner, arguments)
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.change.groups(&self.inner, arguments)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.change.reversed(&self.inner)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.change.order_sensitivity(&self.inner)
    }

    /// One that has the order as a help looks for itself whether it is there.
    fn with_beneficial_ordering(self: Arc<Self>, _is_in_order: bool) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        match self.order_sensitivity() {
            AggregateOrderSensitivity::SoftRequirement => Ok(Some(self)),
            _ => Ok(None),
        }
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(data_type)
    }
}
