//! Figures of an elector, under the names that operators know them by.
//!
//! With the feature `http` they go to the recorder of the `metrics` crate; without it, nowhere.

use std::time::Duration;

/// The figures of one lease.
#[derive(Debug)]
pub(super) struct Stats {
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "nobody is told"))]
    lease: String,
}

#[cfg(feature = "http")]
impl Stats {
    pub(super) fn new(lease: &str) -> Self {
        Self { lease: lease.to_owned() }
    }

    fn lease(&self) -> String {
        self.lease.clone()
    }

    pub(super) fn renewed(&self, took: Duration) {
        metrics::histogram!("renew_seconds", "lease" => self.lease()).record(took.as_secs_f64());
    }

    pub(super) fn renew_failure(&self, kind: &'static str) {
        metrics::counter!("renew_failures_total", "lease" => self.lease(), "kind" => kind)
            .increment(1);
    }

    pub(super) fn transition(&self, reason: &'static str) {
        metrics::counter!("transitions_total", "lease" => self.lease(), "reason" => reason)
            .increment(1);
    }

    pub(super) fn self_fence(&self) {
        metrics::counter!("self_fence_total", "lease" => self.lease()).increment(1);
    }

    pub(super) fn hooks_took(&self, took: Duration) {
        metrics::histogram!("hook_seconds", "lease" => self.lease()).record(took.as_secs_f64());
    }
}

#[cfg(not(feature = "http"))]
#[allow(clippy::unused_self, reason = "the same surface as with `http`")]
impl Stats {
    pub(super) fn new(lease: &str) -> Self {
        Self { lease: lease.to_owned() }
    }

    pub(super) fn renewed(&self, _: Duration) {}

    pub(super) fn renew_failure(&self, _: &'static str) {}

    pub(super) fn transition(&self, _: &'static str) {}

    pub(super) fn self_fence(&self) {}

    pub(super) fn hooks_took(&self, _: Duration) {}
}
