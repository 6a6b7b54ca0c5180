//! The WINDOW clause: windows that build on others.
//!
//! `WINDOW w AS (PARTITION BY g), v AS (w ORDER BY id)`: `v` has the partitions of `w`. DataFusion takes a window's own
//! clauses and forgets those of the window it names, so they are filled in here, as PostgreSQL does: a window may add
//! an order and a frame to one that has none. It looks for names in the select list only; here, windows are written out where
//! they are named, in the ORDER BY of the query as well, so that what is written several times is counted.
//!
//! Where no frame is written, the equals of a row in the order are in its frame. DataFusion's planner takes a frame of
//! rows if the order is by a key of the table, of which there are no equals; but grouping sets make some:
//! `sum(count(*)) OVER (ORDER BY id) … GROUP BY ROLLUP (id, v)`. So beside them the frame is written out.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, GroupByExpr, Ident, NamedWindowExpr, OrderBy, Select, VisitMut, WindowFrame, WindowSpec, WindowType,
};

use super::copies::Copies;
use super::own_expressions::for_each_own;
use crate::sql::text::parse::{fold, place};
use crate::{Error, Result, error::sqlstate};

/// Fills in what the windows of a select inherit, and the frames of those over grouping sets.
pub(in crate::sql) fn resolve_windows(select: &mut Select, copies: &mut Copies) -> Result<()> {
    let known = inherit_windows(select, copies)?;
    for item in &mut select.projection {
        write_out_windows(item, &known, copies)?;
    }
    let is_set = |item: &Expr| matches!(item, Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_));
    if matches!(&select.group_by, GroupByExpr::Expressions(items, _) if items.iter().any(is_set)) {
        for definition in &mut select.named_window {
            if let NamedWindowExpr::WindowSpec(spec) = &mut definition.1 {
                write_frame(spec);
            }
        }
        for item in &mut select.projection {
            let _: ControlFlow<()> = for_each_own(item, |expr| {
                if let Some(spec) = spec_of(expr) {
                    write_frame(spec);
                }
                ControlFlow::Continue(())
            });
        }
    }
    Ok(())
}

/// Writes out the windows of a select that the ORDER BY of its query names.
pub(in crate::sql) fn resolve_ordered_windows(
    select: &mut Select,
    order_by: &mut OrderBy,
    copies: &mut Copies,
) -> Result<()> {
    if select.named_window.is_empty() {
        return Ok(());
    }
    let known = inherit_windows(select, copies)?;
    write_out_windows(order_by, &known, copies)
}

/// Writes out the windows that the functions in `node` name. The planner would do it for those of a select list, but only
/// after the copies have been counted.
fn write_out_windows<N: VisitMut>(node: &mut N, known: &[(String, WindowSpec)], copies: &mut Copies) -> Result<()> {
    let mut write_out = |over: &mut WindowType| match over {
        WindowType::WindowSpec(spec) => inherit(spec, known, copies),
        WindowType::NamedWindow(name) => {
            let spec = window(name, known)?;
            copies.take_shared(spec, 1)?;
            *over = WindowType::WindowSpec(spec.clone());
            Ok(())
        }
    };
    let resolve = |expr: &mut Expr| match expr {
        Expr::Function(Function { over: Some(over), .. }) => match write_out(over) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        },
        _ => ControlFlow::Continue(()),
    };
    match for_each_own(node, resolve) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn write_frame(spec: &mut WindowSpec) {
    if spec.window_frame.is_none() && !spec.order_by.is_empty() {
        spec.window_frame = Some(WindowFrame::default());
    }
}

/// The window that is written out at a function.
fn spec_of(expr: &mut Expr) -> Option<&mut WindowSpec> {
    match expr {
        Expr::Function(Function { over: Some(WindowType::WindowSpec(spec)), .. }) => Some(spec),
        _ => None,
    }
}

/// Fills in what the windows of the WINDOW clause inherit from each other, and tells what they are.
fn inherit_windows(select: &mut Select, copies: &mut Copies) -> Result<Vec<(String, WindowSpec)>> {
    let mut known = Vec::with_capacity(select.named_window.len());
    for definition in &mut select.named_window {
        if let NamedWindowExpr::WindowSpec(spec) = &mut definition.1 {
            inherit(spec, &known, copies)?;
            known.push((fold(&definition.0), spec.clone()));
        }
    }
    Ok(known)
}

fn window<'a>(name: &Ident, known: &'a [(String, WindowSpec)]) -> Result<&'a WindowSpec> {
    let wanted = fold(name);
    let found = known.iter().rfind(|(known, _)| *known == wanted);
    found.map(|(_, spec)| spec).ok_or_else(|| {
        let message = format!("window \"{wanted}\" does not exist");
        Error::new(sqlstate::UNDEFINED_OBJECT, message).at(place(name.span))
    })
}

fn inherit(spec: &mut WindowSpec, known: &[(String, WindowSpec)], copies: &mut Copies) -> Result<()> {
    let Some(name) = spec.window_name.take() else { return Ok(()) };
    let base = window(&name, known)?;
    let refused = |what: &str, name: &Ident| {
        let message = format!("cannot {what} of window \"{}\"", fold(name));
        Err(Error::new(sqlstate::WINDOWING, message).at(place(name.span)))
    };
    if !spec.partition_by.is_empty() {
        return refused("override PARTITION BY clause", &name);
    }
    if !spec.order_by.is_empty() && !base.order_by.is_empty() {
        return refused("override ORDER BY clause", &name);
    }
    if base.window_frame.is_some() {
        return refused("copy the frame clause", &name);
    }
    copies.take_shared(&base.partition_by, 1)?;
    spec.partition_by.clone_from(&base.partition_by);
    if spec.order_by.is_empty() {
        copies.take_shared(&base.order_by, 1)?;
        spec.order_by.clone_from(&base.order_by);
    }
    Ok(())
}
