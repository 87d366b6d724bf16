//! The tokio runtime.
