//! `date + days` and `date - days`. DataFusion makes an interval of the days, whose nanoseconds reach over 292 years only.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, Date32Array};
use arrow::datatypes::{DataType, Date32Type, Int64Type};
use datafusion::logical_expr::{Expr, ScalarUDF};

use super::by_columns::{ByColumns, Nulls};
use crate::error::sqlstate;
use crate::{Error, Result};

static LATER: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| function("days_later", |columns| moved(columns, i64::checked_add)));
static EARLIER: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| function("days_earlier", |columns| moved(columns, i64::checked_sub)));

/// So many days after a date.
pub(crate) fn later(date: Expr, days: Expr) -> Expr {
    LATER.call(vec![date, days])
}

/// So many days before a date.
pub(crate) fn earlier(date: Expr, days: Expr) -> Expr {
    EARLIER.call(vec![date, days])
}

fn function(name: &'static str, compute: fn(&[ArrayRef]) -> Result<ArrayRef>) -> Arc<ScalarUDF> {
    ByColumns { name, takes, gives: |_| DataType::Date32, nulls: Nulls::IfAnArgumentIs, compute }.function()
}

fn takes(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [DataType::Date32, days] if days.is_integer() => Some(vec![DataType::Date32, DataType::Int64]),
        _ => None,
    }
}

fn moved(columns: &[ArrayRef], by: fn(i64, i64) -> Option<i64>) -> Result<ArrayRef> {
    let [dates, days] = columns else { return Err(Error::internal("a date and days were expected")) };
    let (dates, days) = (dates.as_primitive::<Date32Type>(), days.as_primitive::<Int64Type>());
    let moved = dates.iter().zip(days.iter()).map(|pair| match pair {
        (Some(date), Some(days)) => {
            let moved = by(i64::from(date), days).and_then(|moved| i32::try_from(moved).ok());
            moved.map(Some).ok_or_else(|| Error::new(sqlstate::DATETIME_OVERFLOW, "date out of range"))
        }
        _ => Ok(None),
    });
    Ok(Arc::new(Date32Array::from(moved.collect::<Result<Vec<Option<i32>>>>()?)))
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    type Way = fn(i64, i64) -> Option<i64>;

    #[test]
    fn days_reach_over_all_dates() {
        let columns = |date: i32, days: i64| -> [ArrayRef; 2] {
            [Arc::new(Date32Array::from(vec![Some(date), None])), Arc::new(Int64Array::from(vec![days, 1]))]
        };
        for (date, days, later, earlier) in [
            (10_957, 200_000, Some(210_957), Some(-189_043)),
            (0, i64::from(i32::MAX), Some(i32::MAX), Some(-i32::MAX)),
            (1, i64::from(i32::MAX), None, Some(1 - i32::MAX)),
            (0, i64::MIN, None, None),
        ] {
            let ways: [(Way, Option<i32>); 2] = [(i64::checked_add, later), (i64::checked_sub, earlier)];
            for (by, expected) in ways {
                let found = moved(&columns(date, days), by).map_err(|error| error.sqlstate().to_owned());
                let found = found.map(|dates| dates.as_primitive::<Date32Type>().iter().collect::<Vec<_>>());
                let expected = expected.map(|date| vec![Some(date), None]).ok_or_else(|| "22008".to_owned());
                assert_eq!(found, expected, "{date} {days}");
            }
        }
    }
}
