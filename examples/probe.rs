//! Runs rows of the model registry and prints what was found: a tool for those who write models.

#[global_allocator]
static G: mimalloc::MiMalloc = mimalloc::MiMalloc;
use tenure::models::{check, engine::*, registry};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let secs: u64 = a[1].parse().unwrap();
    let rows: Vec<_> = registry::safe().into_iter().chain(registry::mutants()).collect();
    for r in rows {
        if !(a.len() == 2 && !a[1].is_empty()
            || a[2..].iter().any(|p| {
                r.name == *p || (p == "mutants" && r.is_mutant()) || (p == "safe" && !r.is_mutant())
            }))
        {
            continue;
        }
        let o = check::run(
            &r,
            Limits { time: Some(std::time::Duration::from_secs(secs)), ..Limits::default() },
            |_| (),
        );
        println!(
            "{:<22} {:?} {:?} steps={:?} [{}, {}, {}] {:.1}s {}",
            r.name,
            o.verdict,
            o.property,
            o.steps,
            o.counts.unique,
            o.counts.generated,
            o.counts.depth,
            o.elapsed.as_secs_f64(),
            if o.as_registered { "OK" } else { "" }
        );
        if let (false, Some(t)) = (r.is_mutant(), &o.trace) {
            println!("{}", t.narrate());
            println!("{:#?}", t.steps.last().unwrap().nodes);
        }
        if a.len() == 3
            && r.is_mutant()
            && let Some(t) = &o.trace
        {
            println!("{}", t.narrate());
        }
    }
}
