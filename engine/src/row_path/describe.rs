//! What EXPLAIN says of a program: `RowPath: point read of t by (id = $1)`.

use std::fmt::Write as _;

use super::access::{Access, Bound, KeyPart, Range, TableAccess};
use super::datum::Datum;
use super::expression::Node;
use super::program::{Body, Program, Select};

impl Program {
    /// One line for each table that is read or changed.
    pub(crate) fn describe(&self) -> String {
        match &self.body {
            Body::Select(select) => describe_select(select),
            Body::Insert(insert) => {
                let conflict = if insert.conflict.is_some() { ", looking up the key first" } else { "" };
                format!("RowPath: insert into {}{conflict}", insert.table.name)
            }
            Body::Update(update) => format!("RowPath: update, {}", describe_access(&update.target)),
            Body::Delete(delete) => format!("RowPath: delete, {}", describe_access(&delete.target)),
        }
    }
}

fn describe_select(select: &Select) -> String {
    let mut text = String::from("RowPath: ");
    if select.tables.is_empty() {
        text.push_str("expressions");
    }
    for (step, (_, table)) in select.tables.iter().enumerate() {
        if step > 0 {
            text.push_str("\n  then for each row ");
        }
        text.push_str(&describe_access(table));
    }
    if select.aggregates.is_some() {
        text.push_str(", aggregated");
    }
    if !select.sort.is_empty() {
        text.push_str(", sorted");
    }
    if select.lock.is_some() {
        text.push_str(", locking the rows");
    }
    text
}

fn describe_access(access: &TableAccess) -> String {
    let table = access.table.as_ref();
    let name = |columns: &[usize], place: usize| match columns.get(place) {
        Some(column) => table.storage_schema().field(*column).name().clone(),
        None => String::new(),
    };
    let equalities = |columns: &[usize], parts: &[KeyPart]| {
        let each =
            parts.iter().enumerate().map(|(place, part)| format!("{} = {}", name(columns, place), shown(&part.value)));
        each.collect::<Vec<_>>()
    };
    let mut text = match &access.access {
        Access::Key(parts) => {
            format!("point read of {} by ({})", table.name, equalities(table.key_columns(), parts).join(", "))
        }
        Access::Range(range) => {
            let Range { index, equal, lower, upper, descending, limit } = range;
            let (order, columns) = match index.and_then(|position| table.indexes.get(position)) {
                Some(index) => (format!("index {}", index.name), index.columns.as_slice()),
                None => ("key".to_owned(), table.key_columns()),
            };
            let mut conditions = equalities(columns, equal);
            let mut bound = |end: &Option<Bound>, sign: &str| {
                if let Some(Bound { part, inclusive }) = end {
                    let equals = if *inclusive { "=" } else { "" };
                    conditions.push(format!("{} {sign}{equals} {}", name(columns, equal.len()), shown(&part.value)));
                }
            };
            bound(lower, ">");
            bound(upper, "<");
            let mut text =
                format!("range of {} in the order of its {order} by ({})", table.name, conditions.join(", "));
            if *descending {
                text.push_str(", backwards");
            }
            if let Some(limit) = limit {
                let _ = write!(text, ", first {limit}");
            }
            text
        }
    };
    if !access.conditions.is_empty() {
        let plural = if access.conditions.len() == 1 { "" } else { "s" };
        let _ = write!(text, ", {} more condition{plural}", access.conditions.len());
    }
    text
}

/// A key's value as one would write it.
fn shown(node: &Node) -> String {
    match node {
        Node::Parameter(index) => format!("${}", index + 1),
        Node::Constant(Datum::Int(value)) => value.to_string(),
        Node::Constant(Datum::Text(text)) => format!("'{text}'"),
        Node::Convert(_, inner) => shown(inner),
        Node::Stored(..) => "column".to_owned(),
        _ => "expression".to_owned(),
    }
}
