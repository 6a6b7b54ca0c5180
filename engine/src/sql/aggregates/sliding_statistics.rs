//! Variances, correlations and their like over window frames that slide.
//!
//! DataFusion takes what leaves a frame out of its means and squares again: after a value that dwarfed the others,
//! nothing of them is left, and a NaN stays for ever. Here nothing is taken out. A frame is a queue of two stacks:
//!
//! ```text
//!   outgoing                      incoming
//!   [ a b c ]  [ b c ]  [ c ]     [ d e ]     the frame is  [ a b c ] + [ d e ]
//! ```
//! Of the older values there are the moments of each remainder, of the younger ones those of all. When the first stack
//! is used up, the second one becomes the first. So every value is added twice, however wide the frame is, and moments
//! are only ever added up (Chan, Golub and LeVeque's formula). The results are made of them as PostgreSQL does.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::Float64Type;
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, AggregateUDF};

use super::changed_aggregates::{Change, changed};
use crate::Error;

/// The function with frames of ours, if it is one of these.
pub(in crate::sql) fn sliding(function: Arc<AggregateUDF>) -> Arc<AggregateUDF> {
    match Statistic::of(function.name()) {
        Some(statistic) => changed(function, statistic),
        None => function,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Statistic {
    Variance,
    VarianceOfAll,
    Deviation,
    DeviationOfAll,
    Covariance,
    CovarianceOfAll,
    Correlation,
    Slope,
    Intercept,
    Determination,
    MeanX,
    MeanY,
    SquaresX,
    SquaresY,
    Products,
}

impl Statistic {
    fn of(function: &str) -> Option<Statistic> {
        Some(match function {
            "var" => Statistic::Variance,
            "var_pop" => Statistic::VarianceOfAll,
            "stddev" => Statistic::Deviation,
            "stddev_pop" => Statistic::DeviationOfAll,
            "covar_samp" => Statistic::Covariance,
            "covar_pop" => Statistic::CovarianceOfAll,
            "corr" => Statistic::Correlation,
            "regr_slope" => Statistic::Slope,
            "regr_intercept" => Statistic::Intercept,
            "regr_r2" => Statistic::Determination,
            "regr_avgx" => Statistic::MeanX,
            "regr_avgy" => Statistic::MeanY,
            "regr_sxx" => Statistic::SquaresX,
            "regr_syy" => Statistic::SquaresY,
            "regr_sxy" => Statistic::Products,
            _ => return None,
        })
    }

    fn value(self, moments: &Moments) -> Option<f64> {
        let Moments { count, mean_x, mean_y, squares_x, squares_y, products } = *moments;
        let (any, several, pairs) = (count > 0, count > 1, count as f64);
        // A NaN is not 0, and makes the result one.
        let sloped = any && squares_x != 0.0;
        match self {
            Statistic::Variance => several.then(|| squares_x / (pairs - 1.0)),
            Statistic::VarianceOfAll => any.then(|| squares_x / pairs),
            Statistic::Deviation => several.then(|| (squares_x / (pairs - 1.0)).sqrt()),
            Statistic::DeviationOfAll => any.then(|| (squares_x / pairs).sqrt()),
            Statistic::Covariance => several.then(|| products / (pairs - 1.0)),
            Statistic::CovarianceOfAll => any.then(|| products / pairs),
            Statistic::Correlation => (sloped && squares_y != 0.0).then(|| products / (squares_x * squares_y).sqrt()),
            Statistic::Slope => sloped.then(|| products / squares_x),
            Statistic::Intercept => sloped.then(|| mean_y - mean_x * products / squares_x),
            // A level line tells everything.
            Statistic::Determination if squares_y == 0.0 => sloped.then_some(1.0),
            Statistic::Determination => sloped.then(|| products * products / (squares_x * squares_y)),
            Statistic::MeanX => any.then_some(mean_x),
            Statistic::MeanY => any.then_some(mean_y),
            Statistic::SquaresX => any.then_some(squares_x),
            Statistic::SquaresY => any.then_some(squares_y),
            Statistic::Products => any.then_some(products),
        }
    }
}

/// A pair of values; of one value y is 0.
#[derive(Debug, Clone, Copy)]
struct Pair {
    x: f64,
    y: f64,
}

/// The means of some pairs, and the sums of the squares and products of the distances from them.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: u64,
    mean_x: f64,
    mean_y: f64,
    squares_x: f64,
    squares_y: f64,
    products: f64,
}

impl Moments {
    fn of(Pair { x, y }: Pair) -> Moments {
        // Infinities and NaNs are at no distance from anything.
        let distance = |value: f64| if value.is_finite() { 0.0 } else { f64::NAN };
        let (squares_x, squares_y) = (distance(x), distance(y));
        Moments { count: 1, mean_x: x, mean_y: y, squares_x, squares_y, products: squares_x + squares_y }
    }

    fn and(self, other: Moments) -> Moments {
        if self.count == 0 || other.count == 0 {
            return if self.count == 0 { other } else { self };
        }
        let count = self.count + other.count;
        let (own, others) = (self.count as f64 / count as f64, other.count as f64 / count as f64);
        let (distance_x, distance_y) = (other.mean_x - self.mean_x, other.mean_y - self.mean_y);
        let mean = |mean: f64, other: f64, distance: f64| match distance.is_finite() {
            true => mean + distance * others,
            false => mean * own + other * others,
        };
        let weight = self.count as f64 * others;
        Moments {
            count,
            mean_x: mean(self.mean_x, other.mean_x, distance_x),
            mean_y: mean(self.mean_y, other.mean_y, distance_y),
            squares_x: self.squares_x + other.squares_x + distance_x * distance_x * weight,
            squares_y: self.squares_y + other.squares_y + distance_y * distance_y * weight,
            products: self.products + other.products + distance_x * distance_y * weight,
        }
    }
}

/// The statistic of the pairs in a frame.
#[derive(Debug)]
struct Frame {
    statistic: Statistic,
    /// The moments of the older pairs, and of what is left of them when the oldest ones have gone.
    outgoing: Vec<Moments>,
    incoming: Vec<Pair>,
    of_incoming: Moments,
}

impl Frame {
    fn new(statistic: Statistic) -> Self {
        Frame { statistic, outgoing: Vec::new(), incoming: Vec::new(), of_incoming: Moments::default() }
    }

    fn enter(&mut self, pair: Pair) {
        self.incoming.push(pair);
        self.of_incoming = self.of_incoming.and(Moments::of(pair));
    }

    /// The oldest pair leaves.
    fn leave(&mut self) {
        if self.outgoing.is_empty() {
            let mut rest = Moments::default();
            for pair in self.incoming.drain(..).rev() {
                rest = Moments::of(pair).and(rest);
                self.outgoing.push(rest);
            }
            self.of_incoming = Moments::default();
        }
        self.outgoing.pop();
    }

    fn value(&self) -> Option<f64> {
        let older = self.outgoing.last().copied().unwrap_or_default();
        self.statistic.value(&older.and(self.of_incoming))
    }
}

fn floats(values: &ArrayRef) -> DataFusionResult<&Float64Array> {
    Ok(values.as_primitive_opt::<Float64Type>().ok_or_else(|| Error::internal("a statistic of what is no float"))?)
}

/// The pairs without NULLs.
fn pairs(values: &[ArrayRef]) -> DataFusionResult<Vec<Pair>> {
    match values {
        [x] => Ok(floats(x)?.iter().flatten().map(|x| Pair { x, y: 0.0 }).collect()),
        [y, x] => {
            let both = floats(x)?.iter().zip(floats(y)?.iter());
            Ok(both.filter_map(|(x, y)| Some(Pair { x: x?, y: y? })).collect())
        }
        _ => Err(Error::internal("a statistic of more than two values").into()),
    }
}

impl Accumulator for Frame {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        pairs(values)?.into_iter().for_each(|pair| self.enter(pair));
        Ok(())
    }

    /// What leaves a frame is what entered it first.
    fn retract_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        pairs(values)?.into_iter().for_each(|_| self.leave());
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, _states: &[ArrayRef]) -> DataFusionResult<()> {
        Err(Error::internal("a frame is computed in stages").into())
    }

    fn state(&mut self) -> DataFusionResult<Vec<ScalarValue>> {
        Err(Error::internal("a frame is computed in stages").into())
    }

    fn evaluate(&mut self) -> DataFusionResult<ScalarValue> {
        Ok(ScalarValue::Float64(self.value()))
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self.outgoing.capacity() * size_of::<Moments>()
            + self.incoming.capacity() * size_of::<Pair>()
    }
}

impl Change for Statistic {
    fn sliding(&self, inner: &AggregateUDF, arguments: AccumulatorArgs) -> DataFusionResult<Box<dyn Accumulator>> {
        match arguments.is_distinct {
            true => inner.create_sliding_accumulator(arguments),
            false => Ok(Box::new(Frame::new(*self))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of frames of so many rows.
    fn over(statistic: Statistic, width: usize, values: &[f64]) -> Vec<Option<f64>> {
        let mut frame = Frame::new(statistic);
        let array = |value: f64| -> ArrayRef { Arc::new(Float64Array::from(vec![value])) };
        let value = |(row, value): (usize, &f64)| {
            frame.update_batch(&[array(*value)]).unwrap();
            if row >= width {
                frame.retract_batch(&[array(values[row - width])]).unwrap();
            }
            frame.value()
        };
        values.iter().enumerate().map(value).collect()
    }

    #[test]
    fn what_has_left_a_frame_is_forgotten() {
        let variances =
            over(Statistic::Variance, 2, &[1e9, 1.0, 2.0, 3.0, f64::NAN, 5.0, 6.0, f64::INFINITY, 1.0, 1.0]);
        let nan = |place: usize| variances[place].is_some_and(f64::is_nan);
        assert_eq!((variances[0], variances[2], variances[3]), (None, Some(0.5), Some(0.5)));
        assert!([4, 5, 7, 8].into_iter().all(nan), "{variances:?}");
        assert_eq!((variances[6], variances[9]), (Some(0.5), Some(0.0)));
        assert_eq!(over(Statistic::VarianceOfAll, 1, &[7.0, 0.1]), [Some(0.0), Some(0.0)]);
    }

    #[test]
    fn frames_are_as_good_as_their_values_alone() {
        let values: Vec<f64> = (0..200u32).map(|row| f64::from(row * 7919 % 101) / 8.0).collect();
        for width in [1, 2, 3, 10, 64] {
            for (row, found) in over(Statistic::VarianceOfAll, width, &values).into_iter().enumerate() {
                let frame = &values[(row + 1).saturating_sub(width)..=row];
                let mean = frame.iter().sum::<f64>() / frame.len() as f64;
                let expected = frame.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / frame.len() as f64;
                assert!(found.is_some_and(|found| (found - expected).abs() < 1e-9), "{row} {width}: {found:?}");
            }
        }
    }

    #[test]
    fn null_takes_a_pair_out() {
        let mut frame = Frame::new(Statistic::Slope);
        let y: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), None, Some(5.0), Some(9.0)]));
        let x: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.0), Some(1.0), Some(2.0), None]));
        frame.update_batch(&[Arc::clone(&y), Arc::clone(&x)]).unwrap();
        assert_eq!(frame.value(), Some(2.0));
        frame.retract_batch(&[y.slice(1, 1), x.slice(1, 1)]).unwrap();
        assert_eq!(frame.value(), Some(2.0));
        frame.retract_batch(&[y.slice(0, 1), x.slice(0, 1)]).unwrap();
        assert_eq!(frame.value(), None);
    }
}
