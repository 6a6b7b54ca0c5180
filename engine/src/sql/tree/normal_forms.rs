//! What the planner does not know of Unicode's normal forms.
//!
//! | written | becomes |
//! |---|---|
//! | `x IS NFC NORMALIZED`, `x IS NORMALIZED` | `is_normalized(x, 'NFC')` |
//! | `x IS NOT NFD NORMALIZED` | `NOT is_normalized(x, 'NFD')` |
//! | `normalize(x, NFKC)` | `normalize(x, 'NFKC')` |

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, NormalizationForm, ObjectNamePart, UnaryOperator,
    Value,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::dml::syntax::call_with;
use crate::functions::normal_forms::IS_NORMALIZED;
use crate::sql::text::parse::fold;

/// Rewrites the expression itself, not those inside of it.
pub(in crate::sql) fn rewrite(expr: &mut Expr) {
    match expr {
        Expr::IsNormalized { expr: text, form, negated } => {
            let form = form.take().unwrap_or(NormalizationForm::NFC).to_string();
            let text = std::mem::replace(text.as_mut(), Expr::value(Value::Null));
            let form = Expr::value(Value::SingleQuotedString(form));
            let found = call_with(IS_NORMALIZED, vec![text, form], Span::empty());
            *expr = match *negated {
                true => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(found) },
                false => found,
            };
        }
        Expr::Function(function) => name_form(function),
        _ => {}
    }
}

/// Makes a constant of the form that a call names.
fn name_form(function: &mut Function) {
    let is_normalize = match function.name.0.as_slice() {
        [ObjectNamePart::Identifier(name)] => fold(name) == "normalize",
        _ => false,
    };
    if is_normalize
        && let FunctionArguments::List(list) = &mut function.args
        && let [_, FunctionArg::Unnamed(FunctionArgExpr::Expr(form))] = list.args.as_mut_slice()
        && let Expr::Identifier(word) = form
        && word.quote_style.is_none()
    {
        let name = word.value.to_ascii_uppercase();
        if ["NFC", "NFD", "NFKC", "NFKD"].contains(&name.as_str()) {
            *form = Expr::value(Value::SingleQuotedString(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::parse_expression;

    #[test]
    fn forms_are_constants() {
        for (sql, expected) in [
            ("a IS NORMALIZED", "is_normalized(a, 'NFC')"),
            ("a IS NFKD NORMALIZED", "is_normalized(a, 'NFKD')"),
            ("a IS NOT NFC NORMALIZED", "NOT is_normalized(a, 'NFC')"),
            ("normalize(a, nfd)", "normalize(a, 'NFD')"),
            ("normalize(a)", "normalize(a)"),
            ("normalize(a, b)", "normalize(a, b)"),
        ] {
            let mut expr = parse_expression(sql).unwrap();
            rewrite(&mut expr);
            assert_eq!(expr.to_string(), expected, "{sql}");
        }
    }
}
