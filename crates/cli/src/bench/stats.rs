//! The few figures that many measurements become.

use serde::Serialize;

/// The value in the middle; the mean of the two in the middle of an even number. `None` without any.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let upper = sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(*upper);
    }
    let lower = sorted.get(sorted.len() / 2 - 1)?;

    Some(f64::midpoint(*lower, *upper))
}

/// How far apart the extremes are, as a share of the median; 0 for a single value.
pub(super) fn spread(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let median = median(values).filter(|median| *median != 0.0)?;

    Some((sorted.last()? - sorted.first()?) / median)
}

/// The measured value that so many of a hundred don't exceed.
pub(super) fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let sorted = sorted(values);
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);

    sorted.get(rank).copied()
}

/// Jain's index of fairness: 1 if all shares are equal, 1/n if one has everything.
pub(super) fn jain(shares: &[f64]) -> Option<f64> {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    if squares == 0.0 {
        return None;
    }

    Some(sum * sum / (shares.len() as f64 * squares))
}

/// The smallest share, measured in equal ones.
pub(super) fn min_share(shares: &[f64]) -> Option<f64> {
    let sum: f64 = shares.iter().sum();
    let least = sorted(shares).first().copied()?;
    if sum == 0.0 {
        return None;
    }

    Some(least * shares.len() as f64 / sum)
}

/// Rounds to so many digits that mean something.
pub(super) fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);

    (value * scale).round() / scale
}

/// Round trips of a sparse flow, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Delays {
    pub(super) p50: f64,
    pub(super) p99: f64,
    /// The share of packets that have not come back.
    pub(super) lost: f64,
}

/// What a sparse flow has seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RoundTrips {
    pub(super) millis: Vec<f64>,
    pub(super) sent: usize,
}

impl RoundTrips {
    /// Takes those of another flow over.
    pub(super) fn extend(&mut self, other: &Self) {
        self.millis.extend(&other.millis);
        self.sent += other.sent;
    }

    /// `None` if nothing has come back.
    pub(super) fn delays(&self) -> Option<Delays> {
        let lost = self.sent.saturating_sub(self.millis.len());

        Some(Delays {
            p50: rounded(percentile(&self.millis, 50)?, 3),
            p99: rounded(percentile(&self.millis, 99)?, 3),
            lost: rounded(lost as f64 / self.sent.max(1) as f64, 5),
        })
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);

    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn the_spread_is_relative_to_the_median() {
        assert_eq!(spread(&[9.0, 10.0, 12.0]), Some(0.3));
        assert_eq!(spread(&[5.0]), Some(0.0));
        assert_eq!(spread(&[0.0, 0.0]), None);
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn percentiles_are_measured_values() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();

        assert_eq!(percentile(&values, 50), Some(100.0));
        assert_eq!(percentile(&values, 99), Some(198.0));
        assert_eq!(percentile(&[7.0], 99), Some(7.0));
        assert_eq!(percentile(&[], 99), None);
    }

    #[test]
    fn jains_index_is_one_among_equals_and_small_beside_a_glutton() {
        assert_eq!(jain(&[2.0; 8]), Some(1.0));
        assert_eq!(jain(&[1.0, 0.0, 0.0, 0.0]), Some(0.25));
        assert_eq!(jain(&[0.0, 0.0]), None);
        assert_eq!(jain(&[]), None);
    }

    #[test]
    fn the_smallest_share_is_measured_in_equal_ones() {
        assert_eq!(min_share(&[1.0, 3.0]), Some(0.5));
        assert_eq!(min_share(&[2.0, 2.0]), Some(1.0));
        assert_eq!(min_share(&[0.0]), None);
    }

    #[test]
    fn what_does_not_come_back_is_lost() {
        let mut trips = RoundTrips {
            millis: vec![1.0, 2.0],
            sent: 3,
        };
        trips.extend(&RoundTrips {
            millis: vec![3.0],
            sent: 1,
        });

        let delays = trips.delays().unwrap();
        assert_eq!((delays.p50, delays.p99, delays.lost), (2.0, 3.0, 0.25));
        assert_eq!(RoundTrips::default().delays(), None);
    }
}
