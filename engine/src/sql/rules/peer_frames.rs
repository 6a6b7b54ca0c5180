//! Windows that are ordered by a time of day, by bytes and the like: an analyser rule that runs before type coercion, which
//! refuses frames by RANGE for these types, also where nothing is added to a value: the frame that a window has if none is
//! written is one of these.
//!
//! A frame whose bounds are the beginning, the end or the current row has the same rows by GROUPS: those of equal keys
//! belong together in both. So it becomes that. Frames with an offset are refused by name.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::WindowFunctionParams;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, WindowFrame, WindowFrameBound, WindowFrameUnits};
use datafusion::optimizer::AnalyzerRule;

use super::rewriting::{any_node, any_part, map_windows};
use crate::Error;
use crate::sql::types::name_of;

/// The rule.
#[derive(Debug)]
pub(crate) struct PeerFrames;

impl AnalyzerRule for PeerFrames {
    fn name(&self) -> &str {
        "peer_frames"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        if !has_such_window(&plan)? {
            return Ok(plan);
        }
        map_windows(plan, |params, schema| {
            if let Some(key) = key_without_range(params, schema) {
                params.window_frame = by_groups(&params.window_frame, &key)?;
            }
            Ok(())
        })
    }
}

/// Whether there is anything to do, so that all other plans are only looked at.
fn has_such_window(plan: &LogicalPlan) -> DataFusionResult<bool> {
    any_node(plan, |node| match node {
        LogicalPlan::Window(window) => any_part(node, |part| match part {
            Expr::WindowFunction(function) => key_without_range(&function.params, window.input.schema()).is_some(),
            _ => false,
        }),
        _ => Ok(false),
    })
}

/// The type of the first key of a window whose frame is one by RANGE, if DataFusion has no such frames for it.
fn key_without_range(params: &WindowFunctionParams, schema: &DFSchema) -> Option<DataType> {
    let first = params.order_by.first().filter(|_| params.window_frame.units == WindowFrameUnits::Range)?;
    first.expr.get_type(schema).ok().filter(has_no_range)
}

fn has_no_range(data_type: &DataType) -> bool {
    match data_type {
        DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_)
        | DataType::Duration(_)
        | DataType::Struct(_)
        | DataType::Map(..) => true,
        DataType::Dictionary(_, value) => has_no_range(value),
        _ => false,
    }
}

fn by_groups(frame: &WindowFrame, key: &DataType) -> DataFusionResult<WindowFrame> {
    let has_offset = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::Preceding(offset) | WindowFrameBound::Following(offset) => !offset.is_null(),
        WindowFrameBound::CurrentRow => false,
    };
    if has_offset(&frame.start_bound) || has_offset(&frame.end_bound) {
        let what = format!("RANGE with an offset in a window ordered by {}", name_of(key));
        return Err(Error::unsupported(what).into());
    }
    Ok(WindowFrame::new_bounds(WindowFrameUnits::Groups, frame.start_bound.clone(), frame.end_bound.clone()))
}
