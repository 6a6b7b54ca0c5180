//! `'1e3'::numeric` and `numeric '1e3'`: written out as `'1000'`, which DataFusion reads.

use datafusion::sql::sqlparser::ast::{DataType, Expr, Value};

use crate::functions::numeric_texts::without_exponent;

/// Rewrites the text of a constant of this type.
pub(in crate::sql) fn write_out(expr: &mut Expr) {
    let text = match expr {
        Expr::Cast { expr: inner, data_type, .. } if is_numeric(data_type) => match inner.as_mut() {
            Expr::Value(constant) => &mut constant.value,
            _ => return,
        },
        Expr::TypedString(typed) if is_numeric(&typed.data_type) => &mut typed.value.value,
        _ => return,
    };
    if let Value::SingleQuotedString(text) = text
        && let Some(plain) = without_exponent(text)
    {
        *text = plain;
    }
}

fn is_numeric(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Numeric(_) | DataType::Decimal(_) | DataType::Dec(_))
}
