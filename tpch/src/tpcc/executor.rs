//! Runs one transaction on a connection, in either mode, again and again until nobody else was first.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::client::{Client, Connection, Failure, Parameter, Rows};
use super::input::Input;
use super::random::Random;
use super::statements::{Statements, number_and_name};

/// How often a transaction is run again before it is given up: far more often than chance explains.
pub const RETRIES_MAX: u32 = 100;

/// After so many attempts it waits before the next one.
const PATIENT_ATTEMPTS: u32 = 3;

/// How transactions come to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One CALL of a procedure per transaction.
    Procedure,
    /// Prepared statements between BEGIN and COMMIT.
    Statement,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Committed,
    /// As its input wants it: one New-Order of a hundred.
    RolledBack,
    /// Others were first too often.
    GivenUp,
}

/// A connection with what it has prepared.
pub(super) struct Executor<C: Connection> {
    connection: C,
    prepared: Prepared<C::Statement>,
}

enum Prepared<S> {
    Statements(Box<Statements<S>>),
    Calls(Calls<S>),
}

/// The calls of the procedures.
struct Calls<S> {
    new_order: S,
    payment: S,
    order_status: S,
    delivery: S,
    stock_level: S,
}

impl<C: Connection> Executor<C> {
    pub(super) async fn connect(client: &impl Client<Connection = C>, mode: Mode) -> Result<Self, Failure> {
        let mut connection = client.connect().await?;
        let prepared = match mode {
            Mode::Statement => Prepared::Statements(Box::new(Statements::prepare(&mut connection).await?)),
            Mode::Procedure => Prepared::Calls(Calls {
                new_order: connection
                    .prepare("CALL tpcc_new_order($1, $2, $3, $4, $5, $6, $7, NULL, NULL, NULL, NULL)")
                    .await?,
                payment: connection
                    .prepare("CALL tpcc_payment($1, $2, $3, $4, $5, $6, $7, $8, NULL, NULL, NULL)")
                    .await?,
                order_status: connection
                    .prepare("CALL tpcc_order_status($1, $2, $3, $4, NULL, NULL, NULL, NULL, NULL, NULL, NULL)")
                    .await?,
                delivery: connection.prepare("CALL tpcc_delivery($1, $2, $3, NULL)").await?,
                stock_level: connection.prepare("CALL tpcc_stock_level($1, $2, $3, NULL)").await?,
            }),
        };
        Ok(Executor { connection, prepared })
    }

    /// Runs a transaction to its end. Returns how it ended, and how often it had to be run again.
    pub(super) async fn run(&mut self, input: &Input, random: &mut Random) -> Result<(Outcome, u32), Failure> {
        let mut retries = 0;
        loop {
            match self.attempt(input).await {
                Ok(outcome) => return Ok((outcome, retries)),
                Err(failure) if failure.is_retryable() => {
                    self.connection.roll_back().await?;
                    if retries == RETRIES_MAX {
                        return Ok((Outcome::GivenUp, retries));
                    }
                    retries += 1;
                    if retries > PATIENT_ATTEMPTS {
                        let longest = 100 << (retries - PATIENT_ATTEMPTS).min(8);
                        tokio::time::sleep(Duration::from_micros(random.between(50, longest).unsigned_abs().into()))
                            .await;
                    }
                }
                Err(failure) => {
                    let _ = self.connection.roll_back().await;
                    return Err(failure);
                }
            }
        }
    }

    async fn attempt(&mut self, input: &Input) -> Result<Outcome, Failure> {
        let now = microseconds_now();
        let connection = &mut self.connection;
        match &self.prepared {
            Prepared::Statements(statements) => match input {
                Input::NewOrder(order) => statements.new_order(connection, order, now).await,
                Input::Payment(payment) => statements.payment(connection, payment, now).await,
                Input::OrderStatus(asked) => statements.order_status(connection, asked).await,
                Input::Delivery(delivery) => statements.delivery(connection, delivery, now).await,
                Input::StockLevel(asked) => statements.stock_level(connection, asked).await,
            },
            Prepared::Calls(calls) => calls.call(connection, input, now).await,
        }
    }
}

impl<S> Calls<S> {
    async fn call<C: Connection<Statement = S>>(
        &self,
        connection: &mut C,
        input: &Input,
        now: i64,
    ) -> Result<Outcome, Failure> {
        use Parameter::{Cents, Integer, Integers, Timestamp};
        let called = match input {
            Input::NewOrder(order) => {
                let parameters = [
                    Integer(order.warehouse),
                    Integer(order.district),
                    Integer(order.customer),
                    Timestamp(now),
                    Integers(&order.items),
                    Integers(&order.supplied_by),
                    Integers(&order.quantities),
                ];
                connection.query(&self.new_order, &parameters).await
            }
            Input::Payment(payment) => {
                let (number, name) = number_and_name(&payment.customer);
                let parameters = [
                    Integer(payment.warehouse),
                    Integer(payment.district),
                    Integer(payment.customer_warehouse),
                    Integer(payment.customer_district),
                    number,
                    name,
                    Cents(payment.amount),
                    Timestamp(now),
                ];
                connection.query(&self.payment, &parameters).await
            }
            Input::OrderStatus(asked) => {
                let (number, name) = number_and_name(&asked.customer);
                let parameters = [Integer(asked.warehouse), Integer(asked.district), number, name];
                connection.query(&self.order_status, &parameters).await
            }
            Input::Delivery(delivery) => {
                let parameters = [Integer(delivery.warehouse), Integer(delivery.carrier), Timestamp(now)];
                connection.query(&self.delivery, &parameters).await
            }
            Input::StockLevel(asked) => {
                let parameters = [Integer(asked.warehouse), Integer(asked.district), Integer(asked.threshold)];
                connection.query(&self.stock_level, &parameters).await
            }
        };
        match called {
            // Every procedure answers with one row, whose first column is never NULL.
            Ok(rows) => match rows.integer(0, 0)? {
                Some(_) => Ok(Outcome::Committed),
                None => Err(Failure::unexpected(format!("{} answered NULL", input.kind().name()))),
            },
            Err(failure) if failure.is_unused_item() => Ok(Outcome::RolledBack),
            Err(failure) => Err(failure),
        }
    }
}

/// The time, in microseconds since 1970.
pub(super) fn microseconds_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
