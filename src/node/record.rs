//! Lets a node write a trace.

use std::hash::Hash;
use std::path::PathBuf;

use rustix::time::ClockId;

use super::clock::BootInstant;
use super::handle::{Runnable, Spec, StartError};
use crate::trace::Traced;
use crate::trace::format::{Clock, FORMAT, Header};
use crate::trace::write::{Writer, open};

//= SPEC TRACE-2
/// Makes the node that is to be started write its trace into this file, behind what is there already.
pub fn record_into<A>(spec: &mut Spec<A>, path: PathBuf)
where
    A: Runnable + Traced<Msg: Hash>,
{
    let mut header = Header {
        tenure_trace: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: A::PROTOCOL.to_owned(),
        cluster: spec.cluster.clone(),
        node: spec.me.0,
        nodes: u16::try_from(spec.peers.len()).unwrap_or(u16::MAX),
        incarnation: 0,
        clock: Clock { name: String::new(), at: 0, wall: 0 },
        durable: spec.storage.is_some(),
        actors: spec.actors.clone(),
    };
    spec.recorder = Some(Box::new(move |incarnation| {
        let file = open(&path)
            .map_err(|error| StartError::Trace { path: path.clone(), reason: error.to_string() })?;
        header.incarnation = incarnation;
        header.clock = clock();
        Ok(Box::new(Writer::new(file, &header)))
    }));
}

/// This machine's clock. Its name is that of the boot, as the system has it; without one the clock is
/// taken for a clock of its own.
fn clock() -> Clock {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let name =
        boot.map_or_else(|_| format!("process {}", std::process::id()), |id| id.trim().into());
    let wall = rustix::time::clock_gettime(ClockId::Realtime);
    let nanos = i128::from(wall.tv_sec) * 1_000_000_000 + i128::from(wall.tv_nsec);
    Clock { name, at: BootInstant::now().as_nanos(), wall: u64::try_from(nanos).unwrap_or(0) }
}
