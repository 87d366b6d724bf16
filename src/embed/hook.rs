//! What ends the work of a term, and what does if that does not.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::process::Stdio;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::lease::record::Epoch;

/// What a hook returns.
pub type HookFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Something that must be done before the work of a term has ended.
///
/// The token of the term has been cancelled and its guard revoked before any hook begins.
pub struct Hook {
    pub(crate) name: String,
    pub(super) worst: Duration,
    run: Arc<dyn Fn(Epoch) -> HookFuture + Send + Sync>,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook")
            .field("name", &self.name)
            .field("worst", &self.worst)
            .finish_non_exhaustive()
    }
}

impl Hook {
    /// A hook in this process. It gets the epoch that ends, and takes at most `worst`, in real time.
    ///
    /// The times of all hooks are part of S, the stop time in the timing inequality: a set of hooks that
    /// does not fit is refused when the elector is built, and work that overruns S meets the kill switch. A
    /// hook that is still running when that has done its part is dropped.
    pub fn new<F, R>(name: impl Into<String>, worst: Duration, run: F) -> Self
    where
        F: Fn(Epoch) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self { name: name.into(), worst, run: Arc::new(move |epoch| Box::pin(run(epoch))) }
    }

    /// A hook that runs a program and waits for its end. Its environment has `TENURE_EPOCH`. It is killed
    /// after `worst`, and fails unless it exits with 0.
    pub fn command(
        program: impl Into<String>,
        args: impl IntoIterator<Item = impl Into<String>>,
        worst: Duration,
    ) -> Self {
        let program = program.into();
        let args: Vec<String> = args.into_iter().map(Into::into).collect();
        Self::new(program.clone(), worst, move |epoch| {
            let mut command = tokio::process::Command::new(&program);
            command
                .args(&args)
                .env("TENURE_EPOCH", epoch.to_string())
                .stdin(Stdio::null())
                .kill_on_drop(true);
            async move {
                let mut child = command.spawn().map_err(|error| error.to_string())?;
                let status = tokio::time::timeout(worst, child.wait())
                    .await
                    .map_err(|_| format!("it ran for more than {worst:?}"))?
                    .map_err(|error| error.to_string())?;
                if status.success() { Ok(()) } else { Err(status.to_string()) }
            }
        })
    }

    pub(crate) fn begin(&self, epoch: Epoch) -> HookFuture {
        (self.run)(epoch)
    }
}

/// What happens when the work of a term has not ended within S. It needs no hook, no runtime and no
/// elector: a thread of its own pulls it (L-35).
#[derive(Clone)]
pub enum KillSwitch {
    /// The process is aborted.
    Abort,
    /// This is called, on that thread, once for the term. It must end the work, whatever that takes. When it
    /// has returned and all admissions have been dropped, the elector contends again, once L has passed: the
    /// lease is not given back.
    Call(Arc<dyn Fn(Epoch) + Send + Sync>),
}

impl fmt::Debug for KillSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Abort => "Abort",
            Self::Call(_) => "Call",
        })
    }
}

impl KillSwitch {
    pub(super) fn pull(&self, epoch: Epoch) {
        tracing::error!(epoch, "the work of the term has not ended in time: killing it");
        match self {
            Self::Abort => std::process::abort(),
            Self::Call(kill) => kill(epoch),
        }
    }
}

/// What becomes of a server at the end of a term, under MySQL's names. What each does is in
/// `embed::mysql`; of PostgreSQL only the first can be had by SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopMode {
    /// `READ_ONLY`.
    ReadOnly,
    /// `OFFLINE_MODE`.
    OfflineMode,
    /// `ABORT_SERVER`.
    AbortServer,
}

impl StopMode {
    /// MySQL's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "READ_ONLY",
            Self::OfflineMode => "OFFLINE_MODE",
            Self::AbortServer => "ABORT_SERVER",
        }
    }
}

impl fmt::Display for StopMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// It is none of the three names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no mode: use READ_ONLY, OFFLINE_MODE or ABORT_SERVER")]
pub struct StopModeError(String);

impl FromStr for StopMode {
    type Err = StopModeError;

    fn from_str(name: &str) -> Result<Self, StopModeError> {
        let all = [Self::ReadOnly, Self::OfflineMode, Self::AbortServer];
        all.into_iter()
            .find(|mode| mode.name() == name)
            .ok_or_else(|| StopModeError(name.to_owned()))
    }
}
