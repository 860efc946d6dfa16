//! What many windows and many calls come to.

use serde::Serialize;

/// Nanoseconds of single calls, the timer's own cost taken off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the calls took no longer.
    pub p50: f64,
    /// All but one in a hundred took no longer.
    pub p99: f64,
    /// All but one in a thousand took no longer.
    pub p999: f64,
}

impl Latency {
    /// From the times of single calls and what the timer alone takes; `None` where there are too
    /// few to speak of one in a hundred.
    pub(crate) fn of(mut calls: Vec<f64>, timer: f64) -> Option<Self> {
        if calls.len() < 100 {
            return None;
        }
        calls.sort_unstable_by(f64::total_cmp);
        let at = |part: usize| {
            let index = (calls.len() * part / 1000).min(calls.len() - 1);
            calls.get(index).map_or(0.0, |call| (call - timer).max(0.0))
        };
        Some(Self { p50: at(500), p99: at(990), p999: at(999) })
    }
}

/// The value that a quarter of these lie below: what a quiet machine would show, without being the
/// luckiest window of all.
pub(crate) fn lower_quartile(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    part(values, 1, 4)
}

/// The middle one.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    part(values, 1, 2)
}

fn part(values: impl IntoIterator<Item = f64>, numerator: usize, of: usize) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() * numerator / of).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles() {
        assert_eq!(lower_quartile([5.0, 1.0, 4.0, 2.0, 3.0]), Some(2.0));
        assert_eq!(median([5.0, 1.0, 4.0, 2.0, 3.0]), Some(3.0));
        assert_eq!(median([]), None);
    }

    #[test]
    fn percentiles_of_calls() {
        let calls = (0..1000).map(f64::from).collect();
        assert_eq!(Latency::of(calls, 10.0), Some(Latency { p50: 490.0, p99: 980.0, p999: 989.0 }));
        assert_eq!(Latency::of(vec![1.0; 99], 0.0), None);
    }
}
