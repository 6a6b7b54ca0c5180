//! `string_agg` with an ORDER BY, of which a query may have several: `string_agg(x, ',' ORDER BY a), string_agg(x, ',' ORDER BY b)`.
//!
//! DataFusion sorts the rows for it, which can be done for one order only, and refuses others. It need not: the texts are
//! collected together with what they are ordered by, and sorted then, as those of `array_agg` are. So the order of the rows
//! is a help and not a condition.

use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{AggregateUDF, ReversedUDAF};

use super::changed_aggregates::Change;

/// For rows in any order: sorts them, which takes one look if they are in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::sql) struct JoinedTexts;

impl Change for JoinedTexts {
    /// What is reversed would be DataFusion's own.
    fn reversed(&self, _inner: &AggregateUDF) -> ReversedUDAF {
        ReversedUDAF::NotSupported
    }

    fn order_sensitivity(&self, _inner: &AggregateUDF) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::SoftRequirement
    }
}
