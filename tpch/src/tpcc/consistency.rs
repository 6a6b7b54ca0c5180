//! The consistency conditions of TPC-C (clause 3.3.2) as queries for the rows that break them: right is what finds nothing.
//!
//! Amounts are compared with a tolerance of a thousandth, so that the same texts serve databases that compute money in
//! floating point; in exact ones nothing can hide below a cent. Condition 11 is stated for a database that was just loaded,
//! where 2,100 orders per district are delivered; what was delivered since is added.

use super::client::{Connection, Failure};
use super::scale::Scale;

/// Offending rows of a condition that are shown.
const ROWS_SHOWN: usize = 5;

/// A condition.
#[derive(Debug, Clone, Copy)]
pub struct Condition {
    /// Its number in the specification, 1 to 12.
    pub number: u8,
    /// What must hold.
    pub title: &'static str,
    /// Finds the rows for which it does not.
    sql: &'static str,
}

/// A condition that does not hold.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Violation {
    /// The condition's number.
    pub condition: u8,
    /// What should hold.
    pub title: &'static str,
    /// How many rows break it.
    pub rows: usize,
    /// The first of them.
    pub first_rows: Vec<String>,
}

/// All conditions.
pub const CONDITIONS: [Condition; 12] = [
    Condition {
        number: 1,
        title: "a warehouse has been paid what its districts have been paid",
        sql: "SELECT w_id, w_ytd, paid FROM warehouse \
              LEFT JOIN (SELECT d_w_id, sum(d_ytd) AS paid FROM district GROUP BY d_w_id) AS d ON d_w_id = w_id \
              WHERE paid IS NULL OR abs(w_ytd - paid) > 0.001",
    },
    Condition {
        number: 2,
        title: "a district's next order number follows its last order, which is its last new order if any is new",
        sql: "SELECT d_w_id, d_id, d_next_o_id, last_order, last_new FROM district \
              LEFT JOIN (SELECT o_w_id, o_d_id, max(o_id) AS last_order FROM orders GROUP BY o_w_id, o_d_id) AS o \
                ON o_w_id = d_w_id AND o_d_id = d_id \
              LEFT JOIN (SELECT no_w_id, no_d_id, max(no_o_id) AS last_new FROM new_order GROUP BY no_w_id, no_d_id) AS n \
                ON no_w_id = d_w_id AND no_d_id = d_id \
              WHERE last_order IS NULL OR last_order <> d_next_o_id - 1 \
                 OR (last_new IS NOT NULL AND last_new <> d_next_o_id - 1)",
    },
    Condition {
        number: 3,
        title: "the new orders of a district are numbered without gaps",
        sql: "SELECT no_w_id, no_d_id, min(no_o_id) AS first_new, max(no_o_id) AS last_new, count(*) AS rows_new \
              FROM new_order GROUP BY no_w_id, no_d_id HAVING max(no_o_id) - min(no_o_id) + 1 <> count(*)",
    },
    Condition {
        number: 4,
        title: "a district has as many order lines as its orders say",
        sql: "SELECT o_w_id, o_d_id, said, line_rows FROM \
              (SELECT o_w_id, o_d_id, sum(o_ol_cnt) AS said FROM orders GROUP BY o_w_id, o_d_id) AS o \
              LEFT JOIN (SELECT ol_w_id, ol_d_id, count(*) AS line_rows FROM order_line GROUP BY ol_w_id, ol_d_id) AS l \
                ON ol_w_id = o_w_id AND ol_d_id = o_d_id \
              WHERE line_rows IS NULL OR said <> line_rows",
    },
    Condition {
        number: 5,
        title: "an order has no carrier exactly as long as it is new",
        sql: "SELECT o_w_id, o_d_id, o_id, o_carrier_id, no_o_id FROM orders \
              LEFT JOIN new_order ON no_w_id = o_w_id AND no_d_id = o_d_id AND no_o_id = o_id \
              WHERE (o_carrier_id IS NULL AND no_o_id IS NULL) OR (o_carrier_id IS NOT NULL AND no_o_id IS NOT NULL)",
    },
    Condition {
        number: 6,
        title: "an order has as many lines as it says",
        sql: "SELECT o_w_id, o_d_id, o_id, o_ol_cnt, line_rows FROM orders \
              LEFT JOIN (SELECT ol_w_id, ol_d_id, ol_o_id, count(*) AS line_rows FROM order_line \
                         GROUP BY ol_w_id, ol_d_id, ol_o_id) AS l \
                ON ol_w_id = o_w_id AND ol_d_id = o_d_id AND ol_o_id = o_id \
              WHERE line_rows IS NULL OR o_ol_cnt <> line_rows",
    },
    Condition {
        number: 7,
        title: "an order line has no delivery date exactly as long as its order has no carrier",
        sql: "SELECT ol_w_id, ol_d_id, ol_o_id, ol_number, ol_delivery_d, o_carrier_id FROM order_line \
              JOIN orders ON o_w_id = ol_w_id AND o_d_id = ol_d_id AND o_id = ol_o_id \
              WHERE (ol_delivery_d IS NULL AND o_carrier_id IS NOT NULL) \
                 OR (ol_delivery_d IS NOT NULL AND o_carrier_id IS NULL)",
    },
    Condition {
        number: 8,
        title: "a warehouse has been paid what the history says",
        sql: "SELECT w_id, w_ytd, paid FROM warehouse \
              LEFT JOIN (SELECT h_w_id, sum(h_amount) AS paid FROM history GROUP BY h_w_id) AS h ON h_w_id = w_id \
              WHERE paid IS NULL OR abs(w_ytd - paid) > 0.001",
    },
    Condition {
        number: 9,
        title: "a district has been paid what the history says",
        sql: "SELECT d_w_id, d_id, d_ytd, paid FROM district \
              LEFT JOIN (SELECT h_w_id, h_d_id, sum(h_amount) AS paid FROM history GROUP BY h_w_id, h_d_id) AS h \
                ON h_w_id = d_w_id AND h_d_id = d_id \
              WHERE paid IS NULL OR abs(d_ytd - paid) > 0.001",
    },
    Condition {
        number: 10,
        title: "a customer's balance is what was delivered less what was paid",
        sql: "SELECT c_w_id, c_d_id, c_id, c_balance, delivered, paid FROM customer \
              LEFT JOIN (SELECT o_w_id, o_d_id, o_c_id, sum(ol_amount) AS delivered FROM orders \
                         JOIN order_line ON ol_w_id = o_w_id AND ol_d_id = o_d_id AND ol_o_id = o_id \
                         WHERE ol_delivery_d IS NOT NULL GROUP BY o_w_id, o_d_id, o_c_id) AS o \
                ON o_w_id = c_w_id AND o_d_id = c_d_id AND o_c_id = c_id \
              LEFT JOIN (SELECT h_c_w_id, h_c_d_id, h_c_id, sum(h_amount) AS paid FROM history \
                         GROUP BY h_c_w_id, h_c_d_id, h_c_id) AS h \
                ON h_c_w_id = c_w_id AND h_c_d_id = c_d_id AND h_c_id = c_id \
              WHERE abs(c_balance - coalesce(delivered, 0) + coalesce(paid, 0)) > 0.001",
    },
    Condition {
        number: 11,
        title: "the orders of a district that are not new are those delivered by the load and those of its customers since",
        sql: "SELECT d_w_id, d_id, order_rows, new_rows, delivered FROM district \
              LEFT JOIN (SELECT o_w_id, o_d_id, count(*) AS order_rows FROM orders GROUP BY o_w_id, o_d_id) AS o \
                ON o_w_id = d_w_id AND o_d_id = d_id \
              LEFT JOIN (SELECT no_w_id, no_d_id, count(*) AS new_rows FROM new_order GROUP BY no_w_id, no_d_id) AS n \
                ON no_w_id = d_w_id AND no_d_id = d_id \
              LEFT JOIN (SELECT c_w_id, c_d_id, sum(c_delivery_cnt) AS delivered FROM customer \
                         GROUP BY c_w_id, c_d_id) AS c \
                ON c_w_id = d_w_id AND c_d_id = d_id \
              WHERE coalesce(order_rows, 0) - coalesce(new_rows, 0) <> :delivered + coalesce(delivered, 0)",
    },
    Condition {
        number: 12,
        title: "a customer's balance and payments are what was delivered",
        sql: "SELECT c_w_id, c_d_id, c_id, c_balance, c_ytd_payment, delivered FROM customer \
              LEFT JOIN (SELECT o_w_id, o_d_id, o_c_id, sum(ol_amount) AS delivered FROM orders \
                         JOIN order_line ON ol_w_id = o_w_id AND ol_d_id = o_d_id AND ol_o_id = o_id \
                         WHERE ol_delivery_d IS NOT NULL GROUP BY o_w_id, o_d_id, o_c_id) AS o \
                ON o_w_id = c_w_id AND o_d_id = c_d_id AND o_c_id = c_id \
              WHERE abs(c_balance + c_ytd_payment - coalesce(delivered, 0)) > 0.001",
    },
];

impl Condition {
    /// The query for the rows that break it.
    pub fn sql(&self, scale: Scale) -> String {
        self.sql.replace(":delivered", &scale.delivered_orders().to_string())
    }

    /// Looks for rows that break it.
    pub async fn check<C: Connection>(&self, connection: &mut C, scale: Scale) -> Result<Option<Violation>, Failure> {
        let rows = connection.texts(&self.sql(scale)).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let shown = rows.iter().take(ROWS_SHOWN).map(|row| {
            let cells: Vec<&str> = row.iter().map(|cell| cell.as_deref().unwrap_or("NULL")).collect();
            format!("({})", cells.join(", "))
        });
        Ok(Some(Violation { condition: self.number, title: self.title, rows: rows.len(), first_rows: shown.collect() }))
    }
}
