//! Statement mode: each transaction is `BEGIN`, prepared statements, `COMMIT`, with the client's logic in between, as an
//! application without procedures does it. The procedures of `sql/procedures.sql` do the same on the other side.
//!
//! The texts run unchanged on RustyDB, PostgreSQL and SQLite.

use super::client::{Connection, Failure, Parameter, Rows};
use super::executor::Outcome;
use super::input::{Customer, Delivery, NewOrder, OrderStatus, Payment, StockLevel};
use super::scale::DISTRICTS;

use Parameter::{Cents, Integer, Null, Text, Timestamp};

/// The prepared statements of a connection.
#[derive(Debug)]
pub(super) struct Statements<S> {
    next_order: S,
    warehouse_tax: S,
    customer_terms: S,
    insert_order: S,
    insert_new_order: S,
    item: S,
    /// One per district: each order line notes the text of its district.
    take_stock: Vec<S>,
    insert_line: S,
    pay_warehouse: S,
    pay_district: S,
    customers_by_name: S,
    pay_customer: S,
    note_payment: S,
    insert_history: S,
    customer_status: S,
    last_order: S,
    order_lines: S,
    oldest_new_order: S,
    delete_new_order: S,
    carry_order: S,
    order_amount: S,
    deliver_lines: S,
    credit_customer: S,
    next_order_number: S,
    low_stock: S,
}

impl<S> Statements<S> {
    pub(super) async fn prepare<C: Connection<Statement = S>>(connection: &mut C) -> Result<Self, Failure> {
        let mut take_stock = Vec::new();
        for district in 1..=DISTRICTS {
            let text = format!(
                "UPDATE stock SET s_quantity = CASE WHEN s_quantity >= $1 + 10 THEN s_quantity - $1 \
                 ELSE s_quantity - $1 + 91 END, s_ytd = s_ytd + $1, s_order_cnt = s_order_cnt + 1, \
                 s_remote_cnt = s_remote_cnt + $2 WHERE s_w_id = $3 AND s_i_id = $4 \
                 RETURNING s_quantity, s_data, s_dist_{district:02}"
            );
            take_stock.push(connection.prepare(&text).await?);
        }
        // Prepared one after the other, in the order in which they are written.
        macro_rules! prepared {
            ($($text:literal),* $(,)?) => { ($(connection.prepare($text).await?,)*) };
        }
        let (next_order, warehouse_tax, customer_terms, insert_order, insert_new_order, item, insert_line) = prepared![
            "UPDATE district SET d_next_o_id = d_next_o_id + 1 WHERE d_w_id = $1 AND d_id = $2 \
             RETURNING d_next_o_id - 1, d_tax",
            "SELECT w_tax FROM warehouse WHERE w_id = $1",
            "SELECT c_discount, c_last, c_credit FROM customer WHERE c_w_id = $1 AND c_d_id = $2 AND c_id = $3",
            "INSERT INTO orders (o_w_id, o_d_id, o_id, o_c_id, o_entry_d, o_carrier_id, o_ol_cnt, o_all_local) \
             VALUES ($1, $2, $3, $4, $5, NULL, $6, $7)",
            "INSERT INTO new_order (no_w_id, no_d_id, no_o_id) VALUES ($1, $2, $3)",
            "SELECT i_price, i_name, i_data FROM item WHERE i_id = $1",
            "INSERT INTO order_line (ol_w_id, ol_d_id, ol_o_id, ol_number, ol_i_id, ol_supply_w_id, ol_delivery_d, \
             ol_quantity, ol_amount, ol_dist_info) VALUES ($1, $2, $3, $4, $5, $6, NULL, $7, $8, $9)",
        ];
        let (pay_warehouse, pay_district, customers_by_name, pay_customer, note_payment, insert_history) = prepared![
            "UPDATE warehouse SET w_ytd = w_ytd + $1 WHERE w_id = $2 \
             RETURNING w_name, w_street_1, w_street_2, w_city, w_state, w_zip",
            "UPDATE district SET d_ytd = d_ytd + $1 WHERE d_w_id = $2 AND d_id = $3 \
             RETURNING d_name, d_street_1, d_street_2, d_city, d_state, d_zip",
            "SELECT c_id FROM customer WHERE c_w_id = $1 AND c_d_id = $2 AND c_last = $3 ORDER BY c_first",
            "UPDATE customer SET c_balance = c_balance - $1, c_ytd_payment = c_ytd_payment + $1, \
             c_payment_cnt = c_payment_cnt + 1 WHERE c_w_id = $2 AND c_d_id = $3 AND c_id = $4 \
             RETURNING c_credit, c_first, c_middle, c_last, c_credit_lim, c_discount, c_balance",
            "UPDATE customer SET c_data = substr(CAST($1 AS VARCHAR(500)) || c_data, 1, 500) \
             WHERE c_w_id = $2 AND c_d_id = $3 AND c_id = $4 RETURNING substr(c_data, 1, 200)",
            "INSERT INTO history (h_c_id, h_c_d_id, h_c_w_id, h_d_id, h_w_id, h_date, h_amount, h_data) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        ];
        let (customer_status, last_order, order_lines) = prepared![
            "SELECT c_first, c_middle, c_last, c_balance FROM customer \
             WHERE c_w_id = $1 AND c_d_id = $2 AND c_id = $3",
            "SELECT o_id, o_entry_d, o_carrier_id FROM orders WHERE o_w_id = $1 AND o_d_id = $2 AND o_c_id = $3 \
             ORDER BY o_id DESC LIMIT 1",
            "SELECT ol_i_id, ol_supply_w_id, ol_quantity, ol_amount, ol_delivery_d FROM order_line \
             WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id = $3",
        ];
        let (oldest_new_order, delete_new_order, carry_order, order_amount, deliver_lines, credit_customer) = prepared![
            "SELECT no_o_id FROM new_order WHERE no_w_id = $1 AND no_d_id = $2 ORDER BY no_o_id LIMIT 1",
            "DELETE FROM new_order WHERE no_w_id = $1 AND no_d_id = $2 AND no_o_id = $3",
            "UPDATE orders SET o_carrier_id = $1 WHERE o_w_id = $2 AND o_d_id = $3 AND o_id = $4 RETURNING o_c_id",
            "SELECT sum(ol_amount) FROM order_line WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id = $3",
            "UPDATE order_line SET ol_delivery_d = $1 WHERE ol_w_id = $2 AND ol_d_id = $3 AND ol_o_id = $4",
            "UPDATE customer SET c_balance = c_balance + $1, c_delivery_cnt = c_delivery_cnt + 1 \
             WHERE c_w_id = $2 AND c_d_id = $3 AND c_id = $4",
        ];
        let (next_order_number, low_stock) = prepared![
            "SELECT d_next_o_id FROM district WHERE d_w_id = $1 AND d_id = $2",
            "SELECT count(DISTINCT s_i_id) FROM order_line JOIN stock ON s_i_id = ol_i_id \
             WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id >= $3 AND ol_o_id < $4 AND s_w_id = $1 AND s_quantity < $5",
        ];
        Ok(Statements {
            next_order,
            warehouse_tax,
            customer_terms,
            insert_order,
            insert_new_order,
            item,
            take_stock,
            insert_line,
            pay_warehouse,
            pay_district,
            customers_by_name,
            pay_customer,
            note_payment,
            insert_history,
            customer_status,
            last_order,
            order_lines,
            oldest_new_order,
            delete_new_order,
            carry_order,
            order_amount,
            deliver_lines,
            credit_customer,
            next_order_number,
            low_stock,
        })
    }

    /// Enters an order. The district's row comes first: others wait for it, and who waits has read nothing yet.
    pub(super) async fn new_order<C: Connection<Statement = S>>(
        &self,
        connection: &mut C,
        order: &NewOrder,
        now: i64,
    ) -> Result<Outcome, Failure> {
        let (warehouse, district) = (Integer(order.warehouse), Integer(order.district));
        connection.begin().await?;
        let rows = connection.query(&self.next_order, &[warehouse, district]).await?;
        let number = integer(&rows, 0, 0)?;
        let district_tax = decimal(&rows, 0, 1, 4)?;
        let rows = connection.query(&self.warehouse_tax, &[warehouse]).await?;
        let warehouse_tax = decimal(&rows, 0, 0, 4)?;
        let customer = Integer(order.customer);
        let rows = connection.query(&self.customer_terms, &[warehouse, district, customer]).await?;
        let discount = decimal(&rows, 0, 0, 4)?;

        let all_local = order.supplied_by.iter().all(|by| *by == order.warehouse);
        let lines = Integer(order.items.len() as i32);
        let entered =
            [warehouse, district, Integer(number), customer, Timestamp(now), lines, Integer(i32::from(all_local))];
        connection.execute(&self.insert_order, &entered).await?;
        connection.execute(&self.insert_new_order, &[warehouse, district, Integer(number)]).await?;

        let take_stock = self.take_stock.get(order.district as usize - 1);
        let take_stock = take_stock.ok_or_else(|| Failure::unexpected("there is no such district"))?;
        let mut total = 0;
        let mut dist_info = String::new();
        let columns = order.items.iter().zip(&order.supplied_by).zip(&order.quantities);
        for (line, ((item, supplied_by), quantity)) in (1..).zip(columns) {
            let rows = connection.query(&self.item, &[Integer(*item)]).await?;
            if rows.count() == 0 {
                connection.roll_back().await?;
                return Ok(Outcome::RolledBack);
            }
            let price = decimal(&rows, 0, 0, 2)?;
            let remote = i32::from(*supplied_by != order.warehouse);
            let taken = [Integer(*quantity), Integer(remote), Integer(*supplied_by), Integer(*item)];
            let rows = connection.query(take_stock, &taken).await?;
            dist_info.clear();
            rows.text(0, 2, &mut dist_info)?;
            let amount = price * i64::from(*quantity);
            total += amount;
            let values = [
                warehouse,
                district,
                Integer(number),
                Integer(line),
                Integer(*item),
                Integer(*supplied_by),
                Integer(*quantity),
                Cents(amount),
                Text(&dist_info),
            ];
            connection.execute(&self.insert_line, &values).await?;
        }
        connection.commit().await?;
        // What the terminal shows; taxes and discount are in ten-thousandths.
        let shown = total * (10_000 - discount) / 10_000 * (10_000 + warehouse_tax + district_tax) / 10_000;
        if shown < 0 {
            return Err(Failure::unexpected(format!("an order of {shown} cents")));
        }
        Ok(Outcome::Committed)
    }

    /// Takes a payment.
    pub(super) async fn payment<C: Connection<Statement = S>>(
        &self,
        connection: &mut C,
        payment: &Payment,
        now: i64,
    ) -> Result<Outcome, Failure> {
        let (warehouse, district, amount) =
            (Integer(payment.warehouse), Integer(payment.district), Cents(payment.amount));
        connection.begin().await?;
        let mut names = String::new();
        let rows = connection.query(&self.pay_warehouse, &[amount, warehouse]).await?;
        rows.text(0, 0, &mut names)?;
        names.push_str("    ");
        let rows = connection.query(&self.pay_district, &[amount, warehouse, district]).await?;
        rows.text(0, 0, &mut names)?;

        let home = (payment.customer_warehouse, payment.customer_district);
        let number = self.find(connection, home, &payment.customer).await?;
        let (home_warehouse, home_district) = (Integer(home.0), Integer(home.1));
        let customer = [amount, home_warehouse, home_district, Integer(number)];
        let rows = connection.query(&self.pay_customer, &customer).await?;
        let mut credit = String::new();
        rows.text(0, 0, &mut credit)?;
        if credit == "BC" {
            let (dollars, cents) = (payment.amount / 100, payment.amount % 100);
            let note = format!(
                "{number} {} {} {} {} {dollars}.{cents:02}|",
                home.1, home.0, payment.district, payment.warehouse
            );
            let noted = [Text(&note), home_warehouse, home_district, Integer(number)];
            connection.query(&self.note_payment, &noted).await?;
        }
        let history =
            [Integer(number), home_district, home_warehouse, district, warehouse, Timestamp(now), amount, Text(&names)];
        connection.execute(&self.insert_history, &history).await?;
        connection.commit().await?;
        Ok(Outcome::Committed)
    }

    /// Shows a customer's last order.
    pub(super) async fn order_status<C: Connection<Statement = S>>(
        &self,
        connection: &mut C,
        asked: &OrderStatus,
    ) -> Result<Outcome, Failure> {
        let (warehouse, district) = (Integer(asked.warehouse), Integer(asked.district));
        connection.begin().await?;
        let number = self.find(connection, (asked.warehouse, asked.district), &asked.customer).await?;
        let customer = [warehouse, district, Integer(number)];
        let rows = connection.query(&self.customer_status, &customer).await?;
        decimal(&rows, 0, 3, 2)?;
        let rows = connection.query(&self.last_order, &customer).await?;
        let order = integer(&rows, 0, 0)?;
        let rows = connection.query(&self.order_lines, &[warehouse, district, Integer(order)]).await?;
        for row in 0..rows.count() {
            decimal(&rows, row, 3, 2)?;
        }
        connection.commit().await?;
        Ok(Outcome::Committed)
    }

    /// Delivers the oldest order of each district that is still new.
    pub(super) async fn delivery<C: Connection<Statement = S>>(
        &self,
        connection: &mut C,
        delivery: &Delivery,
        now: i64,
    ) -> Result<Outcome, Failure> {
        let warehouse = Integer(delivery.warehouse);
        connection.begin().await?;
        for district in (1..=DISTRICTS).map(Integer) {
            let Some(order) = self.take_oldest(connection, warehouse, district).await? else { continue };
            let carried = [Integer(delivery.carrier), warehouse, district, order];
            let rows = connection.query(&self.carry_order, &carried).await?;
            let customer = Integer(integer(&rows, 0, 0)?);
            let rows = connection.query(&self.order_amount, &[warehouse, district, order]).await?;
            let amount = decimal(&rows, 0, 0, 2)?;
            connection.execute(&self.deliver_lines, &[Timestamp(now), warehouse, district, order]).await?;
            connection.execute(&self.credit_customer, &[Cents(amount), warehouse, district, customer]).await?;
        }
        connection.commit().await?;
        Ok(Outcome::Committed)
    }

    /// Takes the oldest new order of a district away. Another delivery may be first: at READ COMMITTED nothing is left to
    /// delete then, and the next one is tried.
    async fn take_oldest<C: Connection<Statement = S>>(
        &self,
        connection: &mut C,
        warehouse: Parameter<'_>,
        district: Parameter<'_>,
    ) -> Result<Option<Parameter<'static>>, Failure> {
        loop {
            let rows = connection.query(&self.oldest_new_order, &[warehouse, district]).await?;
            if rows.count() == 0 {
                return Ok(None);
            }
            let order = Integer(integer(&rows, 0, 0)?);
            if connection.execute(&self.delete_new_order, &[warehouse, district, order]).await? > 0 {
                return Ok(Some(order));
            }
        }
    }

    /// Counts the items of the last twenty orders that are short in stock.
    pub(super) async fn stock_level<C: Connection<Statement = S>>(
        &self,
        connection: &mut C,
        asked: &StockLevel,
    ) -> Result<Outcome, Failure> {
        let (warehouse, district) = (Integer(asked.warehouse), Integer(asked.district));
        connection.begin().await?;
        let rows = connection.query(&self.next_order_number, &[warehouse, district]).await?;
        let next = integer(&rows, 0, 0)?;
        let range = [warehouse, district, Integer(next - 20), Integer(next), Integer(asked.threshold)];
        let rows = connection.query(&self.low_stock, &range).await?;
        integer(&rows, 0, 0)?;
        connection.commit().await?;
        Ok(Outcome::Committed)
    }

    /// A customer's number.
    async fn find<C: Connection<Statement = S>>(
        &self,
        connection: &mut C,
        (warehouse, district): (i32, i32),
        customer: &Customer,
    ) -> Result<i32, Failure> {
        match customer {
            Customer::Number(number) => Ok(*number),
            Customer::LastName(name) => {
                let named = [Integer(warehouse), Integer(district), Text(name)];
                let rows = connection.query(&self.customers_by_name, &named).await?;
                if rows.count() == 0 {
                    return Err(Failure::unexpected(format!("no customer of district {district} is called {name}")));
                }
                integer(&rows, (rows.count() - 1) / 2, 0)
            }
        }
    }
}

/// A whole number that is there.
fn integer(rows: &impl Rows, row: usize, column: usize) -> Result<i32, Failure> {
    let number = rows.integer(row, column)?.and_then(|number| i32::try_from(number).ok());
    number.ok_or_else(|| Failure::unexpected(format!("column {column} of a result holds no number")))
}

/// An exact number that is there, in units of `10^-scale`.
fn decimal(rows: &impl Rows, row: usize, column: usize, scale: u8) -> Result<i64, Failure> {
    let number = rows.decimal(row, column, scale)?;
    number.ok_or_else(|| Failure::unexpected(format!("column {column} of a result holds no number")))
}

/// The customer as the procedures take it: a number, or NULL and a name.
pub(super) fn number_and_name(customer: &Customer) -> (Parameter<'_>, Parameter<'_>) {
    match customer {
        Customer::Number(number) => (Integer(*number), Null),
        Customer::LastName(name) => (Null, Text(name)),
    }
}
