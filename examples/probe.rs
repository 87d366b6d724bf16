//! Explores one lease world and prints what was found: a tool for those who write models.

#[global_allocator]
static G: mimalloc::MiMalloc = mimalloc::MiMalloc;
use tenure::lease::safeguards::Safeguards;
use tenure::models::{engine::*, lease::*, world::*};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let which = a[1].as_str();
    let n = |i: usize, d: u16| a.get(i).and_then(|s| s.parse().ok()).unwrap_or(d);
    let base = Cluster {
        hosts: 2,
        ticks: Ticks {
            lease: 0,
            give_up: n(2, 3),
            renew: n(3, 1),
            retry: n(4, 1),
            poll: n(5, 2),
            jitter: 0,
            hook: n(6, 1),
            clock_error_ppm: u32::from(n(7, 0)) * 1000,
        }
        .with_smallest_lease(Safeguards::ALL),
        timed: true,
        network: Network::Free { repeats: true },
        faults: Faults::NONE,
        safeguards: Safeguards::ALL,
        keeps: Keeps::default(),
        outside: vec![],
        writes: None,
        hints: false,
    };
    use properties::*;
    let mut p = vec![
        single_writer(),
        unique_holder_per_epoch(),
        read_only_under_another(),
        holder_has_deadline(),
        elected(),
        renewed(),
        taken_over(),
        expired(),
    ];
    let c = match which {
        "t2" => base,
        "t2c" => Cluster { faults: Faults::crashes([0, 1], Budget::Unlimited), ..base },
        "t3" => Cluster { hosts: 3, ..base },
        "t3n" => Cluster { hosts: 3, network: Network::Free { repeats: false }, ..base },
        "t2h" => {
            p.push(handed_over());
            Cluster {
                outside: vec![Outside::HandOver, Outside::StepDown],
                faults: Faults { inputs: Budget::Times(1), ..Faults::NONE },
                ..base
            }
        }
        "u2" | "u3" => {
            p.retain(|p| p.name != "single_writer");
            p.push(fenced_effects());
            p.push(no_lost_ack());
            p.push(acknowledged());
            Cluster {
                hosts: if which == "u2" { 2 } else { 3 },
                timed: false,
                network: Network::Free { repeats: n(8, 0) == 1 },
                keeps: Keeps { table: true, ..Keeps::default() },
                writes: Some([("x", "1"), ("x", "2")][..usize::from(n(9, 1))].to_vec()),
                faults: Faults::crashes([0, 1], Budget::Times(n(10, 0) as u8)),
                ..base
            }
        }
        "t2cs" => Cluster { faults: Faults::crashes([0, 1, 2], Budget::Unlimited), ..base },
        "t3c" => Cluster { hosts: 3, faults: Faults::crashes([0, 1, 2], Budget::Times(1)), ..base },
        "u2e" | "u3e" => {
            p.retain(|p| p.name != "single_writer");
            Cluster {
                hosts: if which == "u2e" { 2 } else { 3 },
                timed: false,
                network: Network::Free { repeats: n(8, 0) == 1 },
                faults: Faults {
                    fires: if n(9, 0) == 0 {
                        Budget::Unlimited
                    } else {
                        Budget::Times(n(9, 0) as u8)
                    },
                    ..Faults::crashes(
                        [0, 1, 2],
                        if n(10, 0) == 99 {
                            Budget::Unlimited
                        } else {
                            Budget::Times(n(10, 0) as u8)
                        },
                    )
                },
                ..base
            }
        }
        _ => panic!(),
    };
    println!("{:?}", c.ticks);
    let w = c.world(p);
    let r = explore(
        &w,
        Limits {
            time: Some(std::time::Duration::from_secs(u64::from(n(11, 100)))),
            ..Limits::default()
        },
        |p| {
            if p.unique % 400_000 < 300 {
                eprintln!("{p:?}")
            }
        },
    );
    println!(
        "{:?} ex={} unique={} gen={} depth={} {:?} violated={:?} found={:?}",
        r.end,
        r.exhaustive,
        r.unique,
        r.generated,
        r.depth,
        r.elapsed,
        r.violated,
        r.discoveries.iter().map(|(k, v)| (k, v.steps.len())).collect::<Vec<_>>()
    );
    for v in &r.violated {
        if let Some(path) = r.discoveries.get(v) {
            let mut s = &path.start;
            for (act, st) in &path.steps {
                println!("{:?}", w.event(s, *act));
                s = st;
            }
            for nd in &s.nodes {
                println!("{nd:?}");
            }
            println!("{:?}", s.ghost);
        }
    }
}
