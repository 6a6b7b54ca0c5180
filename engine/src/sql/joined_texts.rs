//! `string_agg` with an ORDER BY, of which a query may have several: `string_agg(x, ',' ORDER BY a), string_agg(x, ',' ORDER BY b)`.
//!
//! DataFusion sorts the rows for it, which can be done for one order only, and refuses others. It need not: the texts are
//! collected together with what they are ordered by, and sorted then, as those of `array_agg` are. So the order of the rows
//! is a help and not a condition.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, Signature,
};

/// DataFusion's function, for rows in any order.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct JoinedTexts {
    pub(super) inner: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for JoinedTexts {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        self.inner.inner().return_type(argument_types)
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> DataFusionResult<Vec<FieldRef>> {
        self.inner.inner().state_fields(arguments)
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> DataFusionResult<Box<dyn Accumulator>> {
        self.inner.inner().accumulator(arguments)
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs) -> bool {
        self.inner.inner().groups_accumulator_supported(arguments)
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs) -> DataFusionResult<Box<dyn GroupsAccumulator>> {
        self.inner.inner().create_groups_accumulator(arguments)
    }

    /// What is reversed would be DataFusion's own.
    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::NotSupported
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::SoftRequirement
    }

    /// Sorts in either case: of rows in order that takes one look.
    fn with_beneficial_ordering(
        self: Arc<Self>,
        _is_in_order: bool,
    ) -> DataFusionResult<Option<Arc<dyn AggregateUDFImpl>>> {
        Ok(Some(self))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.inner().documentation()
    }
}
