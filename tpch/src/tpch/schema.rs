//! The eight tables of TPC-H, with the specification's types and keys, in the order in which they can be loaded.
//!
//! The column types fit `tpchgen-arrow`'s batches without a cast that could lose anything: identifiers are BIGINT (the
//! generator's 64 bits; the specification asks for an unlimited range), money and quantities DECIMAL(15,2).

use std::fmt;

use rustydb_engine::TableDef;
use serde::{Serialize, Serializer};

/// A table of TPC-H.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// The five continents.
    Region,
    /// 25 nations, each in a region.
    Nation,
    /// What is sold.
    Part,
    /// Who sells it, each in a nation.
    Supplier,
    /// Which supplier offers which part: four per part.
    PartSupp,
    /// Who buys, each in a nation; a third of them never order.
    Customer,
    /// Ten orders per customer.
    Orders,
    /// One to seven lines per order: four fifths of all rows.
    LineItem,
}

impl Table {
    /// All tables, parents before the children that refer to them.
    pub const ALL: [Self; 8] = [
        Self::Region,
        Self::Nation,
        Self::Part,
        Self::Supplier,
        Self::PartSupp,
        Self::Customer,
        Self::Orders,
        Self::LineItem,
    ];

    /// The table's name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Region => "region",
            Self::Nation => "nation",
            Self::Part => "part",
            Self::Supplier => "supplier",
            Self::PartSupp => "partsupp",
            Self::Customer => "customer",
            Self::Orders => "orders",
            Self::LineItem => "lineitem",
        }
    }

    /// The table's CREATE TABLE statement.
    pub fn create_statement(self) -> &'static str {
        match self {
            Self::Region => include_str!("schema/region.sql"),
            Self::Nation => include_str!("schema/nation.sql"),
            Self::Part => include_str!("schema/part.sql"),
            Self::Supplier => include_str!("schema/supplier.sql"),
            Self::PartSupp => include_str!("schema/partsupp.sql"),
            Self::Customer => include_str!("schema/customer.sql"),
            Self::Orders => include_str!("schema/orders.sql"),
            Self::LineItem => include_str!("schema/lineitem.sql"),
        }
    }

    /// The names of the primary key's columns, in key order.
    pub fn primary_key(self) -> &'static [&'static str] {
        match self {
            Self::Region => &["r_regionkey"],
            Self::Nation => &["n_nationkey"],
            Self::Part => &["p_partkey"],
            Self::Supplier => &["s_suppkey"],
            Self::PartSupp => &["ps_partkey", "ps_suppkey"],
            Self::Customer => &["c_custkey"],
            Self::Orders => &["o_orderkey"],
            Self::LineItem => &["l_orderkey", "l_linenumber"],
        }
    }

    /// How an existing table of this name differs from TPC-H's, if it does: its columns or its primary key.
    pub(crate) fn difference(self, existing: &TableDef) -> Option<String> {
        let wanted = super::generate::arrow_schema(self);
        let names = |fields: &arrow::datatypes::Fields| {
            fields.iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(", ")
        };
        if names(existing.schema.fields()) != names(wanted.fields()) {
            return Some(format!(
                "its columns are {}, not {}",
                names(existing.schema.fields()),
                names(wanted.fields())
            ));
        }
        for (found, wanted) in existing.schema.fields().iter().zip(wanted.fields()) {
            if found.data_type() != wanted.data_type() {
                let (name, found, wanted) = (found.name(), found.data_type(), wanted.data_type());
                return Some(format!("its column {name} has the type {found}, not {wanted}"));
            }
        }
        let key: Vec<&str> =
            existing.primary_key.iter().map(|&column| existing.schema.field(column).name().as_str()).collect();
        (key != self.primary_key()).then(|| format!("its primary key is ({})", key.join(", ")))
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

    #[test]
    fn parents_come_before_the_children_that_refer_to_them() {
        for (position, table) in Table::ALL.iter().enumerate() {
            let sql = table.create_statement();
            for (_, rest) in sql.match_indices("REFERENCES ").map(|(at, found)| sql.split_at(at + found.len())) {
                let parent = rest.split([' ', '(', ',', '\n']).next().expect("a split has a first piece");
                let parent_position = Table::ALL.iter().position(|table| table.name() == parent);
                assert!(
                    parent_position.is_some_and(|at| at < position),
                    "{table} is loaded before its parent {parent}"
                );
            }
        }
    }

    #[test]
    fn every_statement_names_its_table_and_the_generator_s_columns_in_order() {
        for table in Table::ALL {
            let sql = table.create_statement();
            assert!(sql.starts_with(&format!("CREATE TABLE {table} (")), "{table}");
            let declared: Vec<&str> = sql
                .lines()
                .filter_map(|line| line.strip_prefix("    "))
                .filter_map(|line| line.split(' ').next())
                .filter(|word| word.contains('_'))
                .collect();
            let schema = crate::tpch::generate::arrow_schema(table);
            let generated: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            assert_eq!(declared, generated, "{table}");
            assert!(sql.contains(&format!("PRIMARY KEY ({})", table.primary_key().join(", "))), "{table}");
        }
    }
}
