//! The metrics that a test causes.

use std::collections::BTreeMap;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

/// Records the metrics of this thread until it is dropped.
pub struct MetricsRecorder {
    snapshotter: Snapshotter,
    _guard: metrics::LocalRecorderGuard<'static>,
}

impl MetricsRecorder {
    pub fn start() -> Self {
        let recorder: &'static DebuggingRecorder = Box::leak(Box::new(DebuggingRecorder::new()));
        Self { snapshotter: recorder.snapshotter(), _guard: metrics::set_default_local_recorder(recorder) }
    }

    /// What was counted since the last time: counters, and the values of histograms.
    pub fn take_counts(&self) -> BTreeMap<String, Vec<f64>> {
        let mut counted = BTreeMap::new();
        for (key, _, _, value) in self.snapshotter.snapshot().into_vec() {
            let labels: Vec<_> = key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let name = [vec![key.key().name().to_owned()], labels].concat().join(" ");
            let values = match value {
                DebugValue::Counter(0) => continue,
                DebugValue::Counter(count) => vec![f64::from(u32::try_from(count).unwrap())],
                DebugValue::Gauge(value) => vec![value.into_inner()],
                DebugValue::Histogram(values) if values.is_empty() => continue,
                DebugValue::Histogram(values) => values.into_iter().map(Into::into).collect(),
            };
            counted.insert(name, values);
        }
        counted
    }
}

/// How often something was counted, whatever its labels.
pub fn sum_counts(counted: &BTreeMap<String, Vec<f64>>, name: &str) -> f64 {
    counted.iter().filter(|(key, _)| key.split(' ').next() == Some(name)).flat_map(|(_, values)| values).sum()
}
