//! The nine tables of TPC-C: their names, and the columns of the batches that a load brings.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Serialize, Serializer};

/// The tables, without what refers to what: those come after the rows ([`KEYS`]).
pub const TABLES: &str = include_str!("sql/tables.sql");

/// The indexes and foreign keys.
pub const KEYS: &str = include_str!("sql/keys.sql");

/// The five transactions as procedures in PL/pgSQL.
pub const PROCEDURES: &str = include_str!("sql/procedures.sql");

/// A table of TPC-C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// One row per warehouse: what the scale counts.
    Warehouse,
    /// Ten per warehouse, each with the number of its next order: the hottest rows of all.
    District,
    /// What is sold; the same everywhere and never changed.
    Item,
    /// How much of each item each warehouse has.
    Stock,
    /// 3,000 per district.
    Customer,
    /// Payments; the one table without a key.
    History,
    /// One per order.
    Orders,
    /// The orders that are not delivered yet.
    NewOrder,
    /// Five to fifteen per order.
    OrderLine,
}

impl Table {
    /// All tables, in the order in which they are loaded.
    pub const ALL: [Self; 9] = [
        Self::Item,
        Self::Warehouse,
        Self::District,
        Self::Stock,
        Self::Customer,
        Self::History,
        Self::Orders,
        Self::NewOrder,
        Self::OrderLine,
    ];

    /// The table's name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warehouse => "warehouse",
            Self::District => "district",
            Self::Item => "item",
            Self::Stock => "stock",
            Self::Customer => "customer",
            Self::History => "history",
            Self::Orders => "orders",
            Self::NewOrder => "new_order",
            Self::OrderLine => "order_line",
        }
    }

    /// The columns of its rows in a load.
    pub fn schema(self) -> SchemaRef {
        let columns: &[(&str, Column)] = match self {
            Self::Warehouse => &[
                ("w_id", Column::Integer),
                ("w_name", Column::Text),
                ("w_street_1", Column::Text),
                ("w_street_2", Column::Text),
                ("w_city", Column::Text),
                ("w_state", Column::Text),
                ("w_zip", Column::Text),
                ("w_tax", Column::Decimal(4, 4)),
                ("w_ytd", Column::Decimal(12, 2)),
            ],
            Self::District => &[
                ("d_w_id", Column::Integer),
                ("d_id", Column::Integer),
                ("d_name", Column::Text),
                ("d_street_1", Column::Text),
                ("d_street_2", Column::Text),
                ("d_city", Column::Text),
                ("d_state", Column::Text),
                ("d_zip", Column::Text),
                ("d_tax", Column::Decimal(4, 4)),
                ("d_ytd", Column::Decimal(12, 2)),
                ("d_next_o_id", Column::Integer),
            ],
            Self::Item => &[
                ("i_id", Column::Integer),
                ("i_im_id", Column::Integer),
                ("i_name", Column::Text),
                ("i_price", Column::Decimal(5, 2)),
                ("i_data", Column::Text),
            ],
            Self::Stock => &[
                ("s_w_id", Column::Integer),
                ("s_i_id", Column::Integer),
                ("s_quantity", Column::Integer),
                ("s_dist_01", Column::Text),
                ("s_dist_02", Column::Text),
                ("s_dist_03", Column::Text),
                ("s_dist_04", Column::Text),
                ("s_dist_05", Column::Text),
                ("s_dist_06", Column::Text),
                ("s_dist_07", Column::Text),
                ("s_dist_08", Column::Text),
                ("s_dist_09", Column::Text),
                ("s_dist_10", Column::Text),
                ("s_ytd", Column::Integer),
                ("s_order_cnt", Column::Integer),
                ("s_remote_cnt", Column::Integer),
                ("s_data", Column::Text),
            ],
            Self::Customer => &[
                ("c_w_id", Column::Integer),
                ("c_d_id", Column::Integer),
                ("c_id", Column::Integer),
                ("c_first", Column::Text),
                ("c_middle", Column::Text),
                ("c_last", Column::Text),
                ("c_street_1", Column::Text),
                ("c_street_2", Column::Text),
                ("c_city", Column::Text),
                ("c_state", Column::Text),
                ("c_zip", Column::Text),
                ("c_phone", Column::Text),
                ("c_since", Column::Timestamp),
                ("c_credit", Column::Text),
                ("c_credit_lim", Column::Decimal(12, 2)),
                ("c_discount", Column::Decimal(4, 4)),
                ("c_balance", Column::Decimal(12, 2)),
                ("c_ytd_payment", Column::Decimal(12, 2)),
                ("c_payment_cnt", Column::Integer),
                ("c_delivery_cnt", Column::Integer),
                ("c_data", Column::Text),
            ],
            Self::History => &[
                ("h_c_id", Column::Integer),
                ("h_c_d_id", Column::Integer),
                ("h_c_w_id", Column::Integer),
                ("h_d_id", Column::Integer),
                ("h_w_id", Column::Integer),
                ("h_date", Column::Timestamp),
                ("h_amount", Column::Decimal(6, 2)),
                ("h_data", Column::Text),
            ],
            Self::Orders => &[
                ("o_w_id", Column::Integer),
                ("o_d_id", Column::Integer),
                ("o_id", Column::Integer),
                ("o_c_id", Column::Integer),
                ("o_entry_d", Column::Timestamp),
                ("o_carrier_id", Column::Integer),
                ("o_ol_cnt", Column::Integer),
                ("o_all_local", Column::Integer),
            ],
            Self::NewOrder => {
                &[("no_w_id", Column::Integer), ("no_d_id", Column::Integer), ("no_o_id", Column::Integer)]
            }
            Self::OrderLine => &[
                ("ol_w_id", Column::Integer),
                ("ol_d_id", Column::Integer),
                ("ol_o_id", Column::Integer),
                ("ol_number", Column::Integer),
                ("ol_i_id", Column::Integer),
                ("ol_supply_w_id", Column::Integer),
                ("ol_delivery_d", Column::Timestamp),
                ("ol_quantity", Column::Integer),
                ("ol_amount", Column::Decimal(6, 2)),
                ("ol_dist_info", Column::Text),
            ],
        };
        // Only the two that a delivery fills in may be NULL.
        let is_nullable = |name: &str| matches!(name, "o_carrier_id" | "ol_delivery_d");
        let fields = columns.iter().map(|(name, column)| Field::new(*name, column.data_type(), is_nullable(name)));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// The kinds of columns that TPC-C has.
#[derive(Clone, Copy)]
enum Column {
    Integer,
    Decimal(u8, i8),
    Text,
    Timestamp,
}

impl Column {
    fn data_type(self) -> DataType {
        match self {
            Column::Integer => DataType::Int32,
            Column::Decimal(precision, scale) => DataType::Decimal128(precision, scale),
            Column::Text => DataType::Utf8,
            Column::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Table {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The column names between `CREATE TABLE name (` and its end.
    fn declared(table: Table) -> Vec<&'static str> {
        let start = TABLES.find(&format!("CREATE TABLE {table} (")).expect("a declaration");
        let body = TABLES[start..].split_once("(\n").expect("columns").1.split_once("\n);").expect("an end").0;
        let words = body.lines().filter_map(|line| line.split_whitespace().next());
        words.filter(|word| *word != "PRIMARY").collect()
    }

    #[test]
    fn the_batches_of_a_load_have_the_declared_columns_in_order() {
        for table in Table::ALL {
            let schema = table.schema();
            let loaded: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            assert_eq!(loaded, declared(table), "{table}");
        }
    }
}
