//! What is to be reached: ratios to the floors, per point and path.

use crate::cli::Point;
use crate::system::System;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Requests per second: at least.
    Rate,
    /// The same, of messages that reach clients.
    Deliveries,
    /// CPU of all server processes per request: at most.
    Cpu,
}

/// A bound on a ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Target {
    pub(crate) measure: Measure,
    pub(crate) bound: f64,
    /// The system in the ratio's denominator.
    pub(crate) against: System,
}

impl Target {
    const fn rate(bound: f64, against: System) -> Self {
        Self { measure: Measure::Rate, bound, against }
    }

    pub(crate) fn is_met_by(&self, ratio: f64) -> bool {
        match self.measure {
            Measure::Rate | Measure::Deliveries => ratio >= self.bound,
            Measure::Cpu => ratio <= self.bound,
        }
    }

    /// `met: req/s 0.83 >= 0.80 of floor-epoll`; without a ratio, what is missing.
    pub(crate) fn verdict(&self, ratio: Option<f64>) -> String {
        let (what, sign) = match self.measure {
            Measure::Rate => ("req/s", ">="),
            Measure::Deliveries => ("deliveries/s", ">="),
            Measure::Cpu => ("CPU", "<="),
        };
        let Self { bound, against, .. } = self;
        match ratio {
            None => format!("open: {what} {sign} {bound:.2} of {against}, which did not run"),
            Some(ratio) => {
                let word = if self.is_met_by(ratio) { "met" } else { "MISSED" };
                format!("{word}: {what} {ratio:.2} {sign} {bound:.2} of {against}")
            }
        }
    }
}

/// The targets of a system at a point, the same for every body.
pub(crate) fn at(system: System, point: Point) -> Vec<Target> {
    use System::{FloorEpoll, FloorTokioCtTask, OursAll, OursForward, OursHandler, OursWebsocket};
    match (system, (point.conns, point.pipe)) {
        (OursForward, (100 | 1000, 1)) => {
            let cpu = Target { measure: Measure::Cpu, bound: 1.30, against: FloorEpoll };
            vec![Target::rate(0.80, FloorEpoll), cpu]
        }
        (OursHandler, (100 | 1000, 1)) => vec![Target::rate(0.60, FloorEpoll)],
        (OursForward, (100, 16)) => vec![Target::rate(0.45, FloorTokioCtTask)],
        (OursHandler, (100, 16)) => vec![Target::rate(0.15, FloorTokioCtTask)],
        (OursForward, (1, 64)) => vec![Target::rate(0.60, FloorEpoll)],
        (OursHandler, (1, 64)) => vec![Target::rate(0.20, FloorEpoll)],
        (OursForward, (1, 1)) => vec![Target::rate(0.85, FloorEpoll)],
        (OursHandler, (1, 1)) => vec![Target::rate(0.75, FloorEpoll)],
        (OursAll, (1, 1)) => vec![Target::rate(3.0, OursHandler)],
        (OursWebsocket, _) => vec![Target::rate(0.70, OursForward)],
        _ => vec![],
    }
}

/// Broadcasts to the clients of one net node.
pub(crate) const BROADCAST: Target =
    Target { measure: Measure::Deliveries, bound: 0.70, against: System::FloorBroadcast };

/// p99 of an open loop at half of the capacity, as a multiple of `floor-epoll`'s.
pub(crate) const OPEN_P99_MAX: f64 = 3.0;

/// Bytes that an idle connection may take in net.
pub(crate) const IDLE_BYTES_MAX: f64 = 2048.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_at_least_and_cpu_at_most() {
        let [rate, cpu] = at(System::OursForward, Point { conns: 100, pipe: 1 })[..] else { panic!() };
        assert!(rate.is_met_by(0.80) && !rate.is_met_by(0.79));
        assert!(cpu.is_met_by(1.30) && !cpu.is_met_by(1.31));
    }

    #[test]
    fn verdicts_are_sentences() {
        let target = at(System::OursHandler, Point { conns: 100, pipe: 16 })[0];
        assert_eq!(target.verdict(Some(0.2)), "met: req/s 0.20 >= 0.15 of floor-tokio-ct-task");
        assert_eq!(target.verdict(Some(0.1)), "MISSED: req/s 0.10 >= 0.15 of floor-tokio-ct-task");
        assert_eq!(target.verdict(None), "open: req/s >= 0.15 of floor-tokio-ct-task, which did not run");
    }

    #[test]
    fn floors_and_other_points_have_no_target() {
        assert!(at(System::FloorEpoll, Point { conns: 1, pipe: 1 }).is_empty());
        assert!(at(System::OursForward, Point { conns: 7, pipe: 1 }).is_empty());
    }
}
