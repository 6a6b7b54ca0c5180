//! The scale factor: how large the database is, and which sizes there can be.
//!
//! A [`ScaleFactor`] in hand means that the tables it describes satisfy their keys. The specification defines scale 1 and
//! up; fractions are everyone's convenience, and below 0.025 its formula for the four suppliers of a part can name one
//! supplier twice, which would break PARTSUPP's primary key. Such scales are refused here rather than at row 3,120 of a
//! load.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::error::{Error, Result};

/// Suppliers at scale 1.
const SUPPLIERS_AT_ONE: f64 = 10_000.0;
/// Parts per supplier, at every scale.
const PARTS_PER_SUPPLIER: i64 = 20;
/// Suppliers that offer one part.
const SUPPLIERS_PER_PART: i64 = 4;
/// The specification's largest scale; beyond it keys no longer fit the text formats.
const SCALE_MAX: f64 = 100_000.0;

/// A scale factor for which TPC-H's rules give a valid database: 1 is about a gigabyte of text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaleFactor(f64);

impl ScaleFactor {
    /// Checks that the scale is one for which the tables satisfy their keys.
    pub fn new(scale: f64) -> Result<Self> {
        let refuse = |reason: &str| Err(Error::Scale { given: scale.to_string(), reason: reason.to_owned() });
        if !(scale > 0.0 && scale <= SCALE_MAX) {
            return refuse("it must be above 0 and at most 100000, for example 0.01, 1 or 10");
        }
        if !partsupp_keys_are_unique((SUPPLIERS_AT_ONE * scale) as i64) {
            return refuse(
                "TPC-H's rule for the suppliers of a part would name one of them twice at this size; use 0.01, 0.02 or \
                 any scale from 0.025 up",
            );
        }
        Ok(Self(scale))
    }

    /// The factor as a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for ScaleFactor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let scale = text.trim().parse().map_err(|_| Error::Scale {
            given: text.to_owned(),
            reason: "it is not a number; write for example 0.01, 1 or 10".to_owned(),
        })?;
        Self::new(scale)
    }
}

impl fmt::Display for ScaleFactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for ScaleFactor {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

/// Whether the specification's formula gives every part four different suppliers.
///
/// Supplier `i` of part `p` is `(p + i * (S/4 + (p-1)/S)) mod S + 1` (clause 4.2.3), so two coincide when a multiple
/// (1 to 3) of the step `S/4 + (p-1)/S` is a multiple of `S`. The quotient `(p-1)/S` runs from 0 to 19, parts being
/// twenty times as many as suppliers.
fn partsupp_keys_are_unique(suppliers: i64) -> bool {
    suppliers > 0
        && (0..PARTS_PER_SUPPLIER).all(|quotient| {
            let step = suppliers / SUPPLIERS_PER_PART + quotient;
            (1..SUPPLIERS_PER_PART).all(|distance| distance * step % suppliers != 0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scale_from_a_fortieth_up_has_unique_keys() {
        assert!((250..=20_000).all(partsupp_keys_are_unique));
        assert!(ScaleFactor::new(0.01).is_ok() && ScaleFactor::new(0.02).is_ok() && ScaleFactor::new(0.1).is_ok());
    }

    #[test]
    fn a_scale_whose_keys_would_collide_is_refused_with_advice() {
        // 120 suppliers: step 40 occurs, and three steps come back to the first supplier.
        let message = ScaleFactor::new(0.012).expect_err("a colliding scale").to_string();
        assert!(message.contains("0.012") && message.contains("0.025"), "no advice in: {message}");
        assert!(ScaleFactor::new(0.001).is_err());
    }

    #[test]
    fn what_is_no_positive_number_is_refused() {
        for text in ["0", "-1", "NaN", "inf", "1e9", "", "one", "1,5"] {
            assert!(text.parse::<ScaleFactor>().is_err(), "{text:?} was accepted");
        }
        assert_eq!("0.1".parse::<ScaleFactor>().expect("a valid scale").to_string(), "0.1");
    }
}
