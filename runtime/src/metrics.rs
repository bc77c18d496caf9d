//! Metrics whose labels come from closed enums: a label value that is not in the enum cannot be
//! written, and every series exists (at zero) from the start, so that alerts on rates see the first
//! event.

mod each;

pub use each::{GaugeOfEach, Member};

use std::marker::PhantomData;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};
use prometheus::{Registry, core::Collector};

/// Upper bounds in seconds, from a fast lookup to a large transfer.
pub const DURATION_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// A closed set of values of one label.
pub trait Label: Copy + Send + Sync + 'static {
    /// Name of the label.
    const NAME: &'static str;
    /// Every value.
    const ALL: &'static [Self];
    /// The value as it is exported.
    fn as_str(self) -> &'static str;
}

impl Label for dfs_protocol::problem::ErrorCode {
    const NAME: &'static str = "code";
    const ALL: &'static [Self] = Self::ALL;

    fn as_str(self) -> &'static str {
        self.as_str()
    }
}

/// Declares an enum that is a [`Label`]:
/// `label_enum! { /// Why. pub enum Reason: "reason" { /// Slow. Slow = "slow", } }`.
#[macro_export]
macro_rules! label_enum {
    ($(#[$meta:meta])* $vis:vis enum $name:ident: $label:literal {
        $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $crate::metrics::Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

/// Registers any collector and returns it.
pub fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// A counter without labels. `name` ends in `_total`.
pub fn counter(
    registry: &Registry,
    name: &str,
    help: &str,
) -> Result<IntCounter, prometheus::Error> {
    registered(registry, IntCounter::new(name, help)?)
}

/// A gauge without labels.
pub fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    registered(registry, IntGauge::new(name, help)?)
}

/// A histogram without labels; bounds in the unit that `name` ends in.
pub fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
) -> Result<Histogram, prometheus::Error> {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    registered(registry, Histogram::with_opts(options)?)
}

/// A counter for each value of one label.
#[derive(Debug, Clone)]
pub struct CounterBy<L> {
    vec: IntCounterVec,
    label: PhantomData<fn(L)>,
}

impl<L: Label> CounterBy<L> {
    /// Registers every series at zero.
    pub fn register(
        registry: &Registry,
        name: &str,
        help: &str,
    ) -> Result<Self, prometheus::Error> {
        Self::with_options(registry, Opts::new(name, help))
    }

    /// As [`Self::register`], with constant labels in the options.
    pub fn with_options(registry: &Registry, options: Opts) -> Result<Self, prometheus::Error> {
        let vec = registered(registry, IntCounterVec::new(options, &[L::NAME])?)?;
        for label in L::ALL {
            vec.with_label_values(&[label.as_str()]);
        }
        Ok(Self {
            vec,
            label: PhantomData,
        })
    }

    /// Counts one.
    pub fn inc(&self, label: L) {
        self.add(label, 1);
    }

    /// Counts several.
    pub fn add(&self, label: L, count: u64) {
        self.vec.with_label_values(&[label.as_str()]).inc_by(count);
    }

    /// What was counted so far.
    pub fn get(&self, label: L) -> u64 {
        self.vec.with_label_values(&[label.as_str()]).get()
    }
}

/// A gauge for each value of one label.
#[derive(Debug, Clone)]
pub struct GaugeBy<L> {
    vec: IntGaugeVec,
    label: PhantomData<fn(L)>,
}

impl<L: Label> GaugeBy<L> {
    /// Registers every series at zero.
    pub fn register(
        registry: &Registry,
        name: &str,
        help: &str,
    ) -> Result<Self, prometheus::Error> {
        let vec = registered(
            registry,
            IntGaugeVec::new(Opts::new(name, help), &[L::NAME])?,
        )?;
        for label in L::ALL {
            vec.with_label_values(&[label.as_str()]);
        }
        Ok(Self {
            vec,
            label: PhantomData,
        })
    }

    /// Sets one series.
    pub fn set(&self, label: L, value: i64) {
        self.vec.with_label_values(&[label.as_str()]).set(value);
    }

    /// Reads one series.
    pub fn get(&self, label: L) -> i64 {
        self.vec.with_label_values(&[label.as_str()]).get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    label_enum! {
        /// For the test.
        enum Colour: "colour" {
            /// One.
            Red = "red",
            /// Other.
            Blue = "blue",
        }
    }

    #[test]
    fn every_series_of_a_closed_label_exists_from_the_start() {
        let registry = Registry::new();
        let counter = CounterBy::<Colour>::register(&registry, "dfs_x_total", "x").unwrap();
        let gauge = GaugeBy::<Colour>::register(&registry, "dfs_x_items", "x").unwrap();
        for family in registry.gather() {
            assert_eq!(family.get_metric().len(), 2);
        }
        counter.add(Colour::Blue, 3);
        gauge.set(Colour::Red, -1);
        assert_eq!(counter.get(Colour::Blue), 3);
        assert_eq!((gauge.get(Colour::Red), gauge.get(Colour::Blue)), (-1, 0));
    }
}
