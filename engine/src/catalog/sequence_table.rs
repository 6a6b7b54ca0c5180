//! A sequence as a table of one row, `SELECT last_value FROM s`: where it stands when it is read.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::TableProvider;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream;
use rustydb_storage::{ObjectDef, ObjectId, SequenceSpec, SequenceState};

use crate::Result;
use crate::scan::ExecutionView;
use crate::sequences::SequenceDefinition;

#[derive(Debug, Clone)]
struct SequenceTable {
    id: ObjectId,
    spec: SequenceSpec,
    schema: SchemaRef,
}

/// The provider for a sequence.
pub(crate) fn provider(sequence: &ObjectDef) -> Result<Arc<dyn TableProvider>> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("last_value", DataType::Int64, false),
        Field::new("log_cnt", DataType::Int64, false),
        Field::new("is_called", DataType::Boolean, false),
    ]));
    let spec = SequenceDefinition::of(sequence)?.spec;
    let table = SequenceTable { id: sequence.id, spec, schema: Arc::clone(&schema) };
    Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(table)])?))
}

impl SequenceTable {
    fn row(&self, context: &TaskContext) -> Result<RecordBatch> {
        let view = ExecutionView::of(context)?;
        let SequenceState { value, called } = view.store().sequence_state(self.id, &self.spec);
        // No values are fetched in advance, as PostgreSQL does for its log.
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![value])),
            Arc::new(Int64Array::from(vec![0])),
            Arc::new(BooleanArray::from(vec![called])),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

impl PartitionStream for SequenceTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let table = self.clone();
        let batch = async move { table.row(&context).map_err(Into::into) };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream::once(batch)))
    }
}
