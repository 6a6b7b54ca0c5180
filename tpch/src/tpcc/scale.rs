//! How large a TPC-C database is, and the constants that its random numbers need.
//!
//! The specification knows one number, the warehouses; everything else follows. Tests need less than a hundred megabytes
//! per warehouse, so the rows that hang on a warehouse can be divided by [`Scale::reduction`]; what is measured then is no
//! TPC-C any more, and reports say so.

use serde::Serialize;

use super::random::{NAMES, Random};

/// Districts per warehouse; fixed, because the stock has a column for each.
pub const DISTRICTS: i32 = 10;

/// NURand's A for last names, customers and items (clause 2.1.6).
const A_LAST_NAME: i32 = 255;
const A_CUSTOMER: i32 = 1_023;
const A_ITEM: i32 = 8_191;

/// A database's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Scale {
    /// Warehouses, at least one.
    pub warehouses: i32,
    /// What items, customers and orders are divided by; 1 is the specification.
    pub reduction: i32,
}

/// The largest reduction: it leaves ten customers per district, the fewest that give three new orders.
pub const REDUCTION_MAX: i32 = 300;

impl Scale {
    /// As specified.
    pub fn new(warehouses: i32) -> Self {
        Scale { warehouses, reduction: 1 }
    }

    /// Items in the catalogue, and stock rows per warehouse.
    pub fn items(self) -> i32 {
        100_000 / self.reduction
    }

    /// Customers per district, and orders per district after the load.
    pub fn customers(self) -> i32 {
        3_000 / self.reduction
    }

    /// Orders per district that are delivered after the load; the others are new.
    pub fn delivered_orders(self) -> i32 {
        self.customers() * 7 / 10
    }

    /// The last names of a district: all thousand, unless there are fewer customers.
    pub(crate) fn names(self) -> i32 {
        self.customers().min(NAMES)
    }
}

/// The constants C of NURand, for one run on a database (clause 2.1.6.1).
#[derive(Debug, Clone, Copy)]
pub struct Constants {
    last_name: i32,
    customer: i32,
    item: i32,
}

impl Constants {
    /// The constant for last names that a load with a seed uses.
    pub(crate) fn load_last_name(seed: u64) -> i32 {
        Random::of(&[seed, 0xC1]).between(0, A_LAST_NAME)
    }

    /// The constants of a run with `run_seed` on a database that was loaded with `load_seed`. The one for last names
    /// differs from the load's by 65 to 119, but neither by 96 nor by 112.
    pub fn new(load_seed: u64, run_seed: u64) -> Self {
        let load = Self::load_last_name(load_seed);
        let mut random = Random::of(&[run_seed, 0xC2]);
        let last_name = loop {
            let candidate = random.between(0, A_LAST_NAME);
            if is_valid_distance((candidate - load).abs()) {
                break candidate;
            }
        };
        Constants { last_name, customer: random.between(0, A_CUSTOMER), item: random.between(0, A_ITEM) }
    }

    /// The number of a random last name.
    pub(crate) fn random_name(&self, random: &mut Random, scale: Scale) -> i32 {
        random_name(random, self.last_name, scale)
    }

    /// A random customer of a district.
    pub(crate) fn random_customer(&self, random: &mut Random, scale: Scale) -> i32 {
        random.nurand(A_CUSTOMER, self.customer, 1, scale.customers())
    }

    /// A random item.
    pub(crate) fn random_item(&self, random: &mut Random, scale: Scale) -> i32 {
        random.nurand(A_ITEM, self.item, 1, scale.items())
    }
}

/// Whether last names may be drawn with constants that far apart in a load and a run after it.
fn is_valid_distance(distance: i32) -> bool {
    (65..=119).contains(&distance) && distance != 96 && distance != 112
}

/// The number of a random last name, with a constant.
pub(crate) fn random_name(random: &mut Random, constant: i32, scale: Scale) -> i32 {
    random.nurand(A_LAST_NAME, constant, 0, scale.names() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warehouse_has_the_specified_size() {
        let scale = Scale::new(10);
        assert_eq!((scale.items(), scale.customers(), scale.delivered_orders()), (100_000, 3_000, 2_100));
        let smallest = Scale { reduction: REDUCTION_MAX, ..scale };
        assert_eq!((smallest.items(), smallest.customers(), smallest.delivered_orders()), (333, 10, 7));
    }

    #[test]
    fn every_load_constant_has_a_run_constant_at_the_specified_distance() {
        for load in 0..=A_LAST_NAME {
            assert!((0..=A_LAST_NAME).any(|run| is_valid_distance((run - load).abs())), "{load}");
        }
        for seed in 0..500 {
            let constants = Constants::new(seed, seed + 1);
            let distance = (constants.last_name - Constants::load_last_name(seed)).abs();
            assert!((65..=119).contains(&distance) && distance != 96 && distance != 112, "{distance}");
        }
    }
}
