//! Writers through client nodes, and the check that nothing that was acknowledged is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::process::{Cluster, Control, LEASE, PATIENCE, host_name, soon};
use super::watch::{Watch, probe_key};

/// How long a writer waits for one acknowledgement.
const WRITE: Duration = Duration::from_secs(4);
/// Every so many writes, one to a key that all writers share.
const SHARED_EVERY: u64 = 8;
const SHARED_KEYS: u64 = 4;

/// One write, and its place if it was acknowledged.
#[derive(Clone, Debug)]
pub struct Write {
    key: String,
    value: String,
    seq: Option<u64>,
    asked: Instant,
    answered: Instant,
}

impl Write {
    pub fn is_acknowledged(&self) -> bool {
        self.seq.is_some()
    }
}

/// Places against real time: a write that was asked for after another had been acknowledged has a later place.
/// With places that nobody shares, that is what makes a history linearizable.
pub fn out_of_order(writes: &[Write]) -> Option<String> {
    let mut by_asked: Vec<_> = writes.iter().filter(|write| write.seq.is_some()).collect();
    let mut by_answered = by_asked.clone();
    by_asked.sort_by_key(|write| write.asked);
    by_answered.sort_by_key(|write| write.answered);
    let mut before = by_answered.into_iter().peekable();
    let mut latest: Option<&Write> = None;
    for write in by_asked {
        while let Some(earlier) = before.next_if(|earlier| earlier.answered < write.asked) {
            latest = latest.into_iter().chain([earlier]).max_by_key(|write| write.seq);
        }
        if let Some(latest) = latest.filter(|latest| latest.seq > write.seq) {
            return Some(format!(
                "{} was asked for after {} had been acknowledged at {:?}, and is at {:?}",
                write.key, latest.key, latest.seq, write.seq
            ));
        }
    }
    None
}

pub struct Writers {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Write>>>,
}

/// What the writers have done, and what of it is gone.
#[derive(Debug, Default)]
pub struct Kept {
    pub acknowledged: usize,
    pub unknown: usize,
    pub lost: Vec<String>,
    /// What else is not in order.
    pub problems: Vec<String>,
}

impl Writers {
    pub fn start(cluster: &Cluster, pause: Duration) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let threads = (0..cluster.plan.writers)
            .map(|writer| {
                let control = cluster.members[cluster.writer(writer)].control;
                let ends = Arc::clone(&ends);
                std::thread::spawn(move || write(writer, control, pause, &ends))
            })
            .collect();
        Self { ends, threads }
    }

    /// Ends the writers and compares what they were told with what the hosts have.
    pub fn check(self, cluster: &Cluster, watch: Watch) -> Kept {
        self.ends.store(true, Ordering::Relaxed);
        let writes: Vec<Write> = self
            .threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a writer has failed"))
            .collect();
        let mut kept = Kept::default();
        let is_settled = soon(PATIENCE, || watch.settled().is_some());
        if !is_settled {
            kept.problems.push("the cluster never settled after the last fault".to_owned());
        }
        let probes = watch.stop().1;
        // What is committed reaches the others with the next copy or resend.
        let mut tables = Vec::new();
        let is_same = soon(PATIENCE, || {
            tables = (0..cluster.plan.hosts).filter_map(|host| table(cluster, host)).collect();
            tables.len() == cluster.plan.hosts
                && tables.iter().all(|table| table["rows"] == tables[0]["rows"])
        });
        if !is_same {
            kept.problems.push("the hosts' tables never became the same".to_owned());
        }
        kept.problems.extend(out_of_order(&writes));
        let mut places = BTreeMap::new();
        let mut newest: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
        for write in &writes {
            let Some(seq) = write.seq else {
                kept.unknown += 1;
                continue;
            };
            kept.acknowledged += 1;
            if let Some(other) = places.insert(seq, &write.key) {
                kept.problems.push(format!("{other} and {} are both at {seq}", write.key));
            }
            let known = newest.entry(&write.key).or_insert((seq, &write.value));
            *known = (*known).max((seq, &write.value));
        }
        for (host, table) in tables.iter().enumerate() {
            let at = host_name(host);
            for (key, &(seq, value)) in &newest {
                let row = &table["rows"][key];
                let (have, have_seq) = (row["value"].as_str(), row["seq"].as_u64());
                let is_there = match have_seq {
                    Some(have_seq) if have_seq == seq => have == Some(value),
                    // Something of unknown outcome may have replaced it.
                    Some(have_seq) if have_seq > seq => writes.iter().any(|write| {
                        write.seq.is_none() && write.key == **key && have == Some(&write.value)
                    }),
                    _ => false,
                };
                if !is_there {
                    kept.lost.push(format!("{key} = {value} at {seq}: {at} has {row}"));
                }
            }
            for (prober, &number) in probes.iter().enumerate() {
                let have = &table["rows"][probe_key(prober)]["value"];
                let have = have.as_str().and_then(|have| have.parse::<u64>().ok()).unwrap_or(0);
                if have < number {
                    kept.lost.push(format!("probe {number} of host {prober}: {at} has {have}"));
                }
            }
        }
        kept
    }
}

fn table(cluster: &Cluster, host: usize) -> Option<Value> {
    let question = json!({"op": "table", "lease": LEASE});
    let answer = cluster.ask(host, &question, Duration::from_secs(10)).ok()?;
    answer["ok"].as_bool().filter(|&ok| ok).map(|_| answer)
}

pub fn write(
    writer: usize,
    address: std::net::SocketAddr,
    pause: Duration,
    ends: &AtomicBool,
) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut control: Option<Control> = None;
    let mut n = 0;
    while !ends.load(Ordering::Relaxed) {
        std::thread::sleep(pause);
        let Some(open) = &mut control else {
            control = Control::connect(address).ok();
            continue;
        };
        n += 1;
        let key = if n % SHARED_EVERY == 0 {
            format!("shared-{}", n / SHARED_EVERY % SHARED_KEYS)
        } else {
            format!("w{writer}-{n}")
        };
        let value = format!("{writer}:{n}");
        let question = json!({
            "op": "put", "lease": LEASE, "key": key, "value": value,
            "timeout_ms": u64::try_from(WRITE.as_millis()).unwrap(),
        });
        let asked = Instant::now();
        let answer = open.ask(&question, WRITE + Duration::from_secs(2));
        let answered = Instant::now();
        let seq = match &answer {
            Ok(answer) if answer["ok"] == true => answer["seq"].as_u64(),
            _ => None,
        };
        if answer.is_err() {
            control = None;
        }
        writes.push(Write { key, value, seq, asked, answered });
    }
    writes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_contradicts_real_time_is_told() {
        let begin = Instant::now();
        let write = |key: &str, seq, asked, answered| Write {
            key: key.to_owned(),
            value: String::new(),
            seq,
            asked: begin + Duration::from_millis(asked),
            answered: begin + Duration::from_millis(answered),
        };
        let side_by_side = [write("a", Some(2), 0, 10), write("b", Some(1), 5, 15)];
        assert_eq!(out_of_order(&side_by_side), None);
        let unknown = [write("a", Some(2), 0, 10), write("b", None, 11, 15)];
        assert_eq!(out_of_order(&unknown), None);
        let wrong =
            [write("c", Some(7), 0, 2), write("a", Some(9), 0, 10), write("b", Some(8), 11, 15)];
        assert!(out_of_order(&wrong).expect("told").contains("b was asked for after a"));
    }
}
