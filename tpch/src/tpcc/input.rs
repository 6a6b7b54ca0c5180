//! What the terminals ask for: the five transactions with random inputs (clauses 2.4.1 to 2.8.1), in the specified mix.

use super::random::{Random, last_name};
use super::scale::{Constants, DISTRICTS, Scale};

/// The five kinds of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Enters an order of five to fifteen lines.
    NewOrder,
    /// A customer pays.
    Payment,
    /// A customer asks about the last order.
    OrderStatus,
    /// The oldest order of each district is delivered.
    Delivery,
    /// How many items of the latest orders are short.
    StockLevel,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 5] = [Kind::NewOrder, Kind::Payment, Kind::OrderStatus, Kind::Delivery, Kind::StockLevel];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::NewOrder => "new_order",
            Kind::Payment => "payment",
            Kind::OrderStatus => "order_status",
            Kind::Delivery => "delivery",
            Kind::StockLevel => "stock_level",
        }
    }

    /// How many of a hundred transactions are of this kind: at least the specified minimum (clause 5.2.3).
    pub fn share(self) -> usize {
        match self {
            Kind::NewOrder => 45,
            Kind::Payment => 43,
            Kind::OrderStatus | Kind::Delivery | Kind::StockLevel => 4,
        }
    }
}

/// A transaction to run.
#[derive(Debug, Clone)]
pub enum Input {
    /// See [`Kind::NewOrder`].
    NewOrder(NewOrder),
    /// See [`Kind::Payment`].
    Payment(Payment),
    /// See [`Kind::OrderStatus`].
    OrderStatus(OrderStatus),
    /// See [`Kind::Delivery`].
    Delivery(Delivery),
    /// See [`Kind::StockLevel`].
    StockLevel(StockLevel),
}

impl Input {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Input::NewOrder(_) => Kind::NewOrder,
            Input::Payment(_) => Kind::Payment,
            Input::OrderStatus(_) => Kind::OrderStatus,
            Input::Delivery(_) => Kind::Delivery,
            Input::StockLevel(_) => Kind::StockLevel,
        }
    }
}

/// The input of a New-Order transaction. The lines are one array per column, as the procedure takes them.
#[derive(Debug, Clone)]
pub struct NewOrder {
    /// The home warehouse.
    pub warehouse: i32,
    /// The district.
    pub district: i32,
    /// The customer.
    pub customer: i32,
    /// The items, in ascending order of warehouse and item, so that two orders never wait for each other in a circle. In
    /// one order of a hundred the last one does not exist.
    pub items: Vec<i32>,
    /// The warehouse that each comes from.
    pub supplied_by: Vec<i32>,
    /// How many of each.
    pub quantities: Vec<i32>,
}

/// A customer, by number or by last name.
#[derive(Debug, Clone)]
pub enum Customer {
    /// By number.
    Number(i32),
    /// By last name: the one in the middle of all of that name, by first name.
    LastName(String),
}

/// The input of a Payment transaction.
#[derive(Debug, Clone)]
pub struct Payment {
    /// The warehouse that is paid.
    pub warehouse: i32,
    /// The district that is paid.
    pub district: i32,
    /// The customer's warehouse: fifteen times in a hundred another one.
    pub customer_warehouse: i32,
    /// The customer's district.
    pub customer_district: i32,
    /// Who pays.
    pub customer: Customer,
    /// How much, in cents.
    pub amount: i64,
}

/// The input of an Order-Status transaction.
#[derive(Debug, Clone)]
pub struct OrderStatus {
    /// The customer's warehouse.
    pub warehouse: i32,
    /// The customer's district.
    pub district: i32,
    /// Who asks.
    pub customer: Customer,
}

/// The input of a Delivery transaction.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The warehouse.
    pub warehouse: i32,
    /// Who carries the orders.
    pub carrier: i32,
}

/// The input of a Stock-Level transaction.
#[derive(Debug, Clone)]
pub struct StockLevel {
    /// The warehouse.
    pub warehouse: i32,
    /// The district.
    pub district: i32,
    /// Less than this is short.
    pub threshold: i32,
}

/// A terminal: where it stands, and its random numbers.
#[derive(Debug, Clone)]
pub struct Terminal {
    scale: Scale,
    constants: Constants,
    random: Random,
    /// Its home warehouses. The specification gives each terminal one; where there are fewer terminals than warehouses, a
    /// terminal stands in for those of several.
    homes: Vec<i32>,
    /// The district it asks about.
    district: i32,
    /// The kinds that are to come, from the last to the first: a shuffled deck of a hundred.
    deck: Vec<Kind>,
}

impl Terminal {
    /// Terminal `number` of `count`, counted from 0.
    pub fn new(scale: Scale, constants: Constants, seed: u64, number: usize, count: usize) -> Self {
        let count = count.max(1);
        let homes: Vec<i32> = match count < scale.warehouses.unsigned_abs() as usize {
            true => (1..=scale.warehouses).skip(number).step_by(count).collect(),
            false => vec![(number % scale.warehouses.unsigned_abs() as usize) as i32 + 1],
        };
        let district = (number / scale.warehouses.unsigned_abs() as usize) as i32 % DISTRICTS + 1;
        let random = Random::of(&[seed, 0x7E12, number as u64]);
        Terminal { scale, constants, random, homes, district, deck: Vec::new() }
    }

    /// The next transaction.
    pub fn next_input(&mut self) -> Input {
        let kind = self.next_kind();
        let home = self.homes[self.random.between(0, self.homes.len() as i32 - 1) as usize];
        match kind {
            Kind::NewOrder => Input::NewOrder(self.new_order(home)),
            Kind::Payment => Input::Payment(self.payment(home)),
            Kind::OrderStatus => {
                let district = self.random.between(1, DISTRICTS);
                Input::OrderStatus(OrderStatus { warehouse: home, district, customer: self.customer() })
            }
            Kind::Delivery => Input::Delivery(Delivery { warehouse: home, carrier: self.random.between(1, 10) }),
            Kind::StockLevel => {
                let threshold = self.random.between(10, 20);
                Input::StockLevel(StockLevel { warehouse: home, district: self.district, threshold })
            }
        }
    }

    /// A random number for other purposes, such as how long to wait.
    pub(crate) fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    fn next_kind(&mut self) -> Kind {
        if self.deck.is_empty() {
            let cards = Kind::ALL.into_iter().flat_map(|kind| std::iter::repeat_n(kind, kind.share()));
            let cards: Vec<Kind> = cards.collect();
            let order = self.random.permutation(cards.len() as i32);
            self.deck = order.into_iter().map(|place| cards[place as usize - 1]).collect();
        }
        self.deck.pop().unwrap_or(Kind::NewOrder)
    }

    fn new_order(&mut self, warehouse: i32) -> NewOrder {
        let district = self.random.between(1, DISTRICTS);
        let customer = self.constants.random_customer(&mut self.random, self.scale);
        let count = self.random.between(5, 15);
        let is_rolled_back = self.random.chance(1);
        let mut lines: Vec<(i32, i32)> = (0..count)
            .map(|_| {
                let item = self.constants.random_item(&mut self.random, self.scale);
                let is_remote = self.random.chance(1);
                (if is_remote { self.other_warehouse(warehouse) } else { warehouse }, item)
            })
            .collect();
        lines.sort_unstable();
        if let (true, Some(last)) = (is_rolled_back, lines.last_mut()) {
            last.1 = self.scale.items() + 1;
        }
        NewOrder {
            warehouse,
            district,
            customer,
            items: lines.iter().map(|line| line.1).collect(),
            supplied_by: lines.iter().map(|line| line.0).collect(),
            quantities: lines.iter().map(|_| self.random.between(1, 10)).collect(),
        }
    }

    fn payment(&mut self, warehouse: i32) -> Payment {
        let district = self.random.between(1, DISTRICTS);
        let (customer_warehouse, customer_district) = match self.random.chance(85) {
            true => (warehouse, district),
            false => (self.other_warehouse(warehouse), self.random.between(1, DISTRICTS)),
        };
        let amount = i64::from(self.random.between(100, 500_000));
        Payment { warehouse, district, customer_warehouse, customer_district, customer: self.customer(), amount }
    }

    /// By last name sixty times in a hundred.
    fn customer(&mut self) -> Customer {
        if !self.random.chance(60) {
            return Customer::Number(self.constants.random_customer(&mut self.random, self.scale));
        }
        let mut name = String::new();
        last_name(&mut name, self.constants.random_name(&mut self.random, self.scale));
        Customer::LastName(name)
    }

    /// Any warehouse but this one, if there is another.
    fn other_warehouse(&mut self, warehouse: i32) -> i32 {
        if self.scale.warehouses == 1 {
            return warehouse;
        }
        let other = self.random.between(1, self.scale.warehouses - 1);
        if other < warehouse { other } else { other + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(scale: Scale, count: usize) -> Vec<Input> {
        let mut terminal = Terminal::new(scale, Constants::new(1, 2), 3, 0, 16);
        (0..count).map(|_| terminal.next_input()).collect()
    }

    #[test]
    fn a_hundred_transactions_are_the_specified_mix_in_random_order() {
        let kinds: Vec<Kind> = inputs(Scale::new(10), 1_000).iter().map(Input::kind).collect();
        for hundred in kinds.chunks(100) {
            for kind in Kind::ALL {
                assert_eq!(hundred.iter().filter(|other| **other == kind).count(), kind.share(), "{}", kind.name());
            }
        }
        assert_ne!(kinds[..100], kinds[100..200]);
        assert_eq!(Kind::ALL.into_iter().map(Kind::share).sum::<usize>(), 100);
    }

    #[test]
    fn shares_of_remote_named_and_rolled_back_inputs_are_the_specified_ones() {
        let scale = Scale::new(10);
        let (mut orders, mut rolled_back, mut lines, mut remote_lines) = (0, 0, 0, 0);
        let (mut payments, mut remote, mut named) = (0, 0, 0);
        for input in inputs(scale, 40_000) {
            match input {
                Input::NewOrder(order) => {
                    orders += 1;
                    assert!((5..=15).contains(&order.items.len()) && order.warehouse == 1);
                    let unused = order.items.iter().filter(|&&item| item > scale.items()).count();
                    assert!(unused == 0 || order.items.last() == Some(&(scale.items() + 1)) && unused == 1);
                    rolled_back += unused;
                    lines += order.items.len();
                    remote_lines += order.supplied_by.iter().filter(|&&by| by != 1).count();
                    let keys: Vec<_> = order.supplied_by.iter().zip(&order.items).collect();
                    assert!(keys.is_sorted(), "stock is asked for in order: {keys:?}");
                }
                Input::Payment(payment) => {
                    payments += 1;
                    remote += usize::from(payment.customer_warehouse != 1);
                    named += usize::from(matches!(payment.customer, Customer::LastName(_)));
                    assert!((100..=500_000).contains(&payment.amount));
                }
                _ => {}
            }
        }
        let percent = |part: usize, whole: usize| part as f64 * 100.0 / whole as f64;
        assert!((0.7..1.3).contains(&percent(rolled_back, orders)), "{}", percent(rolled_back, orders));
        assert!((0.9..1.1).contains(&percent(remote_lines, lines)), "{}", percent(remote_lines, lines));
        assert!((14.0..16.0).contains(&percent(remote, payments)), "{}", percent(remote, payments));
        assert!((59.0..61.0).contains(&percent(named, payments)), "{}", percent(named, payments));
        assert!((9.8..10.2).contains(&(lines as f64 / orders as f64)));
    }

    #[test]
    fn terminals_share_out_the_warehouses() {
        let homes = |number, count| {
            let terminal = Terminal::new(Scale::new(10), Constants::new(1, 2), 3, number, count);
            terminal.homes
        };
        assert_eq!(homes(0, 1), (1..=10).collect::<Vec<_>>());
        assert_eq!(homes(1, 4), [2, 6, 10]);
        assert_eq!((homes(0, 16), homes(15, 16)), (vec![1], vec![6]));
        let all: Vec<i32> = (0..8).flat_map(|number| homes(number, 8)).collect();
        assert_eq!(all.len(), 10);
    }

    #[test]
    fn with_one_warehouse_nothing_is_remote() {
        for input in inputs(Scale::new(1), 2_000) {
            if let Input::Payment(payment) = input {
                assert_eq!(payment.customer_warehouse, 1);
            }
        }
    }
}
