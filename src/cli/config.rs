//! `tenure config check` and `tenure config explain`: the timing inequality with numbers.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::paint::Paint;
use crate::config::{Config, ConfigErrors, Region};
use crate::duration::{self, Exact};
use crate::irc::control::Policy;
use crate::lease::presets::{
    Anchor, DOLLARS_PER_MILLION_WRITES, Explanation, Fix, Overrides, Preset, STORE_TIME,
};
use crate::lease::record::NodeId;
use crate::lease::timing::{Inequality, Timing, TimingError};

/// What no timing can give, told wherever a set is called safe.
const NOT_COVERED: &str = "NOT covered: a pause between check and effect";

/// The subcommands of `tenure config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a cluster file, and show the timing inequality of each lease and the numbers of each region.
    #[command(after_help = "Exit codes: 0 every lease is safe and the file has no error \
        (warnings are allowed); 1 a lease is unsafe, or the file is wrong or cannot be read; 2 usage.")]
    Check(CheckArgs),
    /// Explain the timing of another system, or of your own numbers.
    #[command(
        arg_required_else_help = true,
        after_help = "Durations are written as 15s, 2.9s, 500ms or 1m30s.\n\n\
        Without --preset, what is not given is as in tenure's defaults. With --preset, a value that \
        is given replaces the system's own setting: lease, renew and retry are LeaseDuration, \
        RenewDeadline and RetryPeriod for client-go and openshift; ttl, loop_wait and retry_timeout \
        for patroni; lease, renew and poll are leaseDuration, heartbeatPeriod and refreshPeriod for \
        dynamodb; lease is failoverTimeMillis for kcl.\n\n\
        Exit codes: 0 the values are safe, or a preset was explained as it is published; 1 values of \
        your own are unsafe; 2 usage."
    )]
    Explain(ExplainArgs),
}

/// The arguments of `tenure config check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The cluster file.
    pub file: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `tenure config explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The system whose rules and published settings to use.
    #[arg(long, value_name = "NAME", value_parser = preset_parser())]
    pub preset: Option<String>,
    /// L: how long a watcher waits over an unchanged record.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub lease: Option<Duration>,
    /// G: how long a holder holds after its last good renewal.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub give_up: Option<Duration>,
    /// R: the time from one renewal to the next.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub renew: Option<Duration>,
    /// The time after which an unanswered request is sent again.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub retry: Option<Duration>,
    /// P: the time between two reads of a watcher.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub poll: Option<Duration>,
    /// S: the worst time of the stop hook.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub hook: Option<Duration>,
    /// rho: the bound on the error of a clock's rate, in parts per million.
    #[arg(long, value_name = "PPM")]
    pub clock_error_ppm: Option<u32>,
    /// From where the holder counts G.
    #[arg(long, value_enum)]
    pub anchor: Option<AnchorArg>,
    /// D_max: the longest time to an answer; for a holder that counts from the answer.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub answer_max: Option<Duration>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// From where a holder counts, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AnchorArg {
    /// From the send of the renewal.
    Send,
    /// From the receipt of its answer.
    Answer,
}

fn preset_parser() -> clap::builder::PossibleValuesParser {
    Preset::ALL.map(Preset::name).into()
}

/// Runs a subcommand; its exit code is in its help.
pub fn run(command: &ConfigCommand) -> ExitCode {
    match command {
        ConfigCommand::Check(args) => check(args),
        ConfigCommand::Explain(args) => explain(args),
    }
}

fn check(args: &CheckArgs) -> ExitCode {
    let config = Config::load(&args.file);
    let keys = config.as_ref().map(super::keys::problems).unwrap_or_default();
    let text = if args.json {
        format!("{}\n", check_json(&config, &keys))
    } else {
        check_text(&args.file.display().to_string(), &config, &keys, Paint::stdout())
    };
    super::print(&text);
    ExitCode::from(u8::from(config.is_err() || !keys[0].is_empty()))
}

/// What is wrong with the keys of a file that is well otherwise, today: errors, then warnings.
type KeyProblems = [Vec<String>; 2];

/// The name and the timing of each lease that could be read.
fn timings(config: &Result<Config, ConfigErrors>) -> Vec<(String, Timing)> {
    match config {
        Ok(config) => {
            let leases = config.leases.iter();
            leases.map(|lease| (lease.name.clone(), lease.timing.get())).collect()
        }
        Err(errors) => errors.timings().to_vec(),
    }
}

fn check_json(config: &Result<Config, ConfigErrors>, keys: &KeyProblems) -> Value {
    let leases: Vec<_> = timings(config)
        .into_iter()
        .map(|(name, timing)| {
            let numbers = timing.inequality();
            json!({
                "name": name,
                "lease": Exact(timing.lease).to_string(),
                "give_up": Exact(timing.give_up).to_string(),
                "renew": Exact(timing.renew).to_string(),
                "retry": Exact(timing.retry).to_string(),
                "poll": Exact(timing.poll).to_string(),
                "jitter": Exact(timing.jitter).to_string(),
                "hook": Exact(timing.hook).to_string(),
                "clock_error_ppm": timing.clock_error_ppm,
                "need_ns": numbers.need_ns().and_then(|ns| u64::try_from(ns).ok()),
                "margin_ns": margin_json(numbers),
                "safe": numbers.is_safe(),
                "valid": timing.validate().is_ok(),
                "overlap_ns": ns_json(numbers.overlap()),
                "smallest_lease_ns": numbers.smallest_lease().map(ns_json),
                "largest_give_up_ns": timing.largest_give_up().map(ns_json),
                "largest_hook_ns": numbers.largest_hook().map(ns_json),
                "largest_clock_error_ppm": numbers.largest_clock_error_ppm(),
                "takeover_earliest_ns": ns_json(timing.takeover_earliest()),
                "takeover_latest_ns": ns_json(timing.takeover_latest(STORE_TIME, STORE_TIME)),
                "self_fence_ns": ns_json(timing.self_fence()),
            })
        })
        .collect();
    let (warnings, mut errors) = match config {
        Ok(config) => (&config.warnings[..], Vec::new()),
        Err(errors) => (errors.warnings(), errors.iter().map(ToString::to_string).collect()),
    };
    let warnings = warnings.iter().map(ToString::to_string).chain(keys[1].iter().cloned());
    errors.extend(keys[0].iter().cloned());
    json!({
        "ok": config.is_ok() && keys[0].is_empty(),
        "cluster": config.as_ref().ok().map(|config| &config.cluster),
        "leases": leases,
        "regions": config.as_ref().map(regions_json).unwrap_or_default(),
        "warnings": warnings.collect::<Vec<_>>(),
        "errors": errors,
    })
}

/// Nanoseconds as a JSON number; null beyond 584 years.
fn ns_json(duration: Duration) -> Value {
    u64::try_from(duration.as_nanos()).map_or(Value::Null, Value::from)
}

/// The margin as a JSON number; null if it is beyond 292 years.
fn margin_json(numbers: Inequality) -> Value {
    i64::try_from(numbers.margin_ns()).map_or(Value::Null, Value::from)
}

fn check_text(
    file: &str,
    config: &Result<Config, ConfigErrors>,
    keys: &KeyProblems,
    paint: Paint,
) -> String {
    let mut text = String::new();
    for (name, timing) in timings(config) {
        let _ = writeln!(text, "{}", paint.strong(format!("lease {}", name.escape_debug())));
        for line in timing_lines(&timing, paint) {
            let _ = writeln!(text, "  {line}");
        }
        text.push('\n');
    }
    for region in config.iter().flat_map(|config| &config.regions) {
        text += &region_lines(config.as_ref().expect("it has regions"), region, paint);
    }
    let (warnings, errors) = match config {
        Ok(config) => (&config.warnings[..], None),
        Err(errors) => (errors.warnings(), Some(errors)),
    };
    for warning in warnings {
        let _ = writeln!(text, "{}: {warning}", paint.warn("warning"));
    }
    for warning in &keys[1] {
        let _ = writeln!(text, "{}: {warning}", paint.warn("warning"));
    }
    for error in errors.into_iter().flatten() {
        let _ = writeln!(text, "{}: {error}", paint.bad("error"));
    }
    for error in &keys[0] {
        let _ = writeln!(text, "{}: {error}", paint.bad("error"));
    }
    let _ = match config {
        Ok(_) if !keys[0].is_empty() => {
            let refused = format!("UNUSABLE, {}", count(keys[0].len(), "error"));
            writeln!(text, "{file}: {}", paint.bad(refused))
        }
        Ok(config) => {
            let mut parts = vec![count(config.nodes.len(), "node")];
            if !config.regions.is_empty() {
                parts.push(count(config.regions.len(), "region"));
            }
            if !config.leases.is_empty() {
                parts.push(count(config.leases.len(), "lease"));
                parts.push(paint.good("every lease is SAFE"));
            }
            writeln!(text, "{file}: cluster {:?}, {}", config.cluster, parts.join(", "))
        }
        Err(errors) => {
            let refused = format!("REFUSED, {}", count(errors.iter().len(), "error"));
            writeln!(text, "{file}: {}", paint.bad(refused))
        }
    };
    text
}

fn regions_json(config: &Config) -> Vec<Value> {
    let name = |id: NodeId| config.node_by_id(id).map(|node| &node.name);
    let regions = config.regions.iter().map(|region| {
        let policy = &region.policy;
        json!({
            "name": region.name,
            "control_plane": name(region.control_plane),
            "servers": region.servers.iter().map(|&id| name(id)).collect::<Vec<_>>(),
            "networks": region.networks.len(),
            "claim": Exact(policy.lease).to_string(),
            "call": Exact(region.carrier.call).to_string(),
            "poll": Exact(region.carrier.poll).to_string(),
            "tick": Exact(policy.tick).to_string(),
            "pending_ticks": policy.pending,
            "remember_ticks": policy.remember,
            "tokens_ticks": policy.tokens,
        })
    });
    regions.collect()
}

/// Who runs a region and with which numbers, line by line.
fn region_lines(config: &Config, region: &Region, paint: Paint) -> String {
    let name = |id: NodeId| config.node_by_id(id).map_or("?", |node| &node.name);
    let servers: Vec<_> = region.servers.iter().map(|&id| name(id)).collect();
    let Policy { lease, retry, tick, pending, tokens, quota, claims, .. } = &region.policy;
    let ticks = |count: u64| plain(tick.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX)));
    format!(
        "{}\n  control plane {}, servers {}; {}\n  \
         claim {} s  call {} s  poll {} s   retry {} .. {} s, floor {} s   at most {claims} calls to a region\n  \
         a request waits {} s for its answer, a call is known by its token for {} s\n  \
         a network has at most {} peerings and {} requests, an account {} requests\n\n",
        paint.strong(format!("region {}", region.name)),
        name(region.control_plane),
        servers.join(", "),
        count(region.networks.len(), "network"),
        plain(*lease),
        plain(region.carrier.call),
        plain(region.carrier.poll),
        plain(retry[2]),
        plain(retry[1]),
        plain(retry[0]),
        ticks(*pending),
        ticks(*tokens),
        quota[0],
        quota[1],
        quota[2],
    )
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// The inequality of one lease with its numbers, line by line.
fn timing_lines(timing: &Timing, paint: Paint) -> Vec<String> {
    let numbers = timing.inequality();
    let ppm = u128::from(timing.clock_error_ppm);
    let mut lines = vec![format!(
        "L {} s  G {} s  R {} s  S {} s  rho {ppm} ppm  P {} s   anchor send   clock BOOTTIME",
        plain(timing.lease),
        plain(timing.give_up),
        plain(timing.renew),
        plain(timing.hook),
        plain(timing.poll),
    )];
    let Some(need) = numbers.need_ns() else {
        lines.push(format!(
            "need  infinite: such a clock may stand still    {}",
            paint.bad("UNSAFE")
        ));
        return lines;
    };
    let fast = plain_ns((1_000_000 + ppm) * 1_000);
    let slow = plain_ns((1_000_000 - ppm) * 1_000);
    lines.push(format!(
        "need  {}*({fast}/{slow}) + {}*{fast} = {} s    have {} s    margin {}    {}",
        plain(timing.give_up),
        plain(timing.hook),
        fixed(need, 3),
        fixed(timing.lease.as_nanos(), 3),
        margin(numbers),
        verdict(numbers, paint),
    ));
    if !numbers.is_safe() {
        if let Some(smallest) = numbers.smallest_lease() {
            let give_up = timing.largest_give_up();
            let or = give_up.map(|give_up| format!(", or give_up <= {} s", plain(give_up)));
            lines.push(format!("fix: lease >= {} s{}", plain(smallest), or.unwrap_or_default()));
        }
        return lines;
    }
    lines.push(format!(
        "takeover {} .. {} s (D_r = D_w = {} s)   renewal at {} s, retries until {} s",
        fixed(timing.takeover_earliest().as_nanos(), 3),
        fixed(timing.takeover_latest(STORE_TIME, STORE_TIME).as_nanos(), 3),
        plain(STORE_TIME),
        plain(timing.renew),
        plain(timing.give_up),
    ));
    let largest = |duration: Option<Duration>| duration.map(plain).unwrap_or_default();
    lines.push(format!(
        "safe while, one at a time: L >= {} s  G <= {} s  S <= {} s  rho <= {} ppm",
        largest(numbers.smallest_lease()),
        largest(numbers.largest_hold()),
        largest(numbers.largest_hook()),
        numbers.largest_clock_error_ppm().unwrap_or(0).min(Timing::CLOCK_ERROR_MAX_PPM),
    ));
    lines.push(paint.faint(NOT_COVERED));
    lines
}

fn explain(args: &ExplainArgs) -> ExitCode {
    let overrides = Overrides {
        lease: args.lease,
        give_up: args.give_up,
        renew: args.renew,
        retry: args.retry,
        poll: args.poll,
        hook: args.hook,
        clock_error_ppm: args.clock_error_ppm,
        anchor: args.anchor.map(|anchor| match anchor {
            AnchorArg::Send => Anchor::Send,
            AnchorArg::Answer => Anchor::Answer,
        }),
        answer_max: args.answer_max,
    };
    let is_own = overrides != Overrides::default();
    if !is_own && args.preset.is_none() {
        return super::usage_error("give --preset, or values of your own such as --lease 15s");
    }
    let preset = args.preset.as_deref().and_then(Preset::from_name).unwrap_or(Preset::Tenure);
    let told = match preset.explain(&overrides) {
        Ok(told) => told,
        Err(error) => return super::usage_error(error),
    };
    // What else tenure would refuse; the inequality is told in full anyhow.
    let refused: Vec<_> = told
        .timing
        .and_then(|timing| timing.validate().err())
        .iter()
        .flatten()
        .filter(|error| !matches!(error, TimingError::Unsafe { .. }))
        .map(ToString::to_string)
        .collect();
    let name = if args.preset.is_some() { preset.name() } else { "values" };
    let text = if args.json {
        format!("{}\n", explain_json(name, &told, &refused))
    } else {
        explain_text(name, &told, &refused, Paint::stdout())
    };
    super::print(&text);
    let is_bad = !told.is_safe() || !refused.is_empty();
    ExitCode::from(u8::from(is_own && is_bad))
}

fn explain_json(name: &str, told: &Explanation, refused: &[String]) -> Value {
    let settings = told.settings.iter().map(|(name, length)| (name, Exact(*length).to_string()));
    let parts = told.parts.iter().map(
        |part| json!({ "name": part.name, "times": part.times, "length_ns": ns_json(part.length) }),
    );
    json!({
        "name": name,
        "settings": settings.map(|(name, length)| json!({ "name": name, "value": length })).collect::<Vec<_>>(),
        "lease_set_ns": ns_json(told.lease_set),
        "lease_ns": ns_json(told.lease),
        "give_up_ns": ns_json(told.give_up),
        "give_up_parts": parts.collect::<Vec<_>>(),
        "anchor": match told.anchor {
            Anchor::Send => "send",
            Anchor::Answer => "answer",
            Anchor::LoopStart => "loop-start",
        },
        "answer_max_ns": told.answer_max.map(ns_json),
        "hook_ns": told.hook.map(ns_json),
        "clock_error_ppm": told.clock_error_ppm,
        "need_ns": told.worst.need_ns().and_then(|ns| u64::try_from(ns).ok()),
        "margin_ns": margin_json(told.worst),
        "margin_instant_answers_ns": margin_json(told.instant),
        "safe": told.is_safe(),
        "overlap_ns": ns_json(told.worst.overlap()),
        "takeover_max_ns": ns_json(told.takeover_max),
        "takeover_how": told.takeover_how,
        "writes_per_second": told.writes_per_second(),
        "dollars_per_lease_month": told.dollars_per_month(),
        "dollars_per_million_writes": DOLLARS_PER_MILLION_WRITES,
        "fixes": told.fixes.iter().map(|&fix| fix_text(fix)).collect::<Vec<_>>(),
        "refused": refused,
        "notes": told.preset.notes(),
        "source": told.preset.source(),
    })
}

fn explain_text(name: &str, told: &Explanation, refused: &[String], paint: Paint) -> String {
    let settings: Vec<_> = told.settings.iter().map(|(_, length)| plain(*length)).collect();
    let title = format!("{name} {}", settings.join("/"));
    let parts: Vec<_> = told
        .parts
        .iter()
        .map(|part| match part.times {
            1 => format!("{} {}", part.name, plain(part.length)),
            times => format!("{times}*{} {}", part.name, plain(part.length)),
        })
        .collect();
    let parts = if parts.len() > 1 { format!(" = {}", parts.join(" + ")) } else { String::new() };
    let mut text = format!(
        "{}: G {} s{parts}, from the {}; {}rho {} ppm; {}\n",
        paint.strong(title),
        plain(told.give_up),
        match told.anchor {
            Anchor::Send => "SEND",
            Anchor::Answer => "ANSWER",
            Anchor::LoopStart => "START OF ITS LOOP",
        },
        told.answer_max.map(|time| format!("D_max {} s; ", plain(time))).unwrap_or_default(),
        told.clock_error_ppm,
        match told.hook {
            Some(hook) => format!("S {} s", plain(hook)),
            None => "S not declared (0)".into(),
        },
    );
    let _ = writeln!(
        text,
        "need {} s   have {} s{}   margin {}   {}{}",
        told.worst.need_ns().map_or_else(|| "infinite".into(), |need| fixed(need, 3)),
        plain(told.lease),
        match told.lease_set == told.lease {
            true => String::new(),
            false => format!(" (stored; {} s is set)", plain(told.lease_set)),
        },
        margin(told.worst),
        verdict(told.worst, paint),
        match told.anchor {
            Anchor::Answer => format!(" (margin {} if answers are instant)", margin(told.instant)),
            Anchor::Send | Anchor::LoopStart => String::new(),
        },
    );
    let fixes: Vec<_> = told.fixes.iter().map(|&fix| fix_text(fix)).collect();
    let fixes =
        if fixes.is_empty() { String::new() } else { format!("   fix: {}", fixes.join(", or ")) };
    let _ = writeln!(
        text,
        "takeover up to {} s   {} writes/s = ${:.2} per lease-month at ${DOLLARS_PER_MILLION_WRITES} \
         per million writes{fixes}",
        trimmed(&fixed(told.takeover_max.as_nanos(), 3)),
        rate(told.writes_per_second()),
        told.dollars_per_month(),
    );
    text.push('\n');
    let mut remark = |label: &str, remark: &str| {
        let _ = writeln!(text, "  {}  {remark}", paint.faint(format!("{label:<8}")));
    };
    let settings: Vec<_> =
        told.settings.iter().map(|(name, length)| format!("{name} {} s", plain(*length))).collect();
    remark("settings", &settings.join(", "));
    remark("takeover", told.takeover_how);
    for (i, note) in told.preset.notes().iter().enumerate() {
        remark(if i == 0 { "notes" } else { "" }, note);
    }
    // Tenure's rules, be it with its own numbers or with the operator's, need no source.
    if told.timing.is_none() {
        remark("meaning", "the worst that the timing rules allow, worked out and not measured");
        remark("source", told.preset.source());
    }
    for error in refused {
        let _ = writeln!(text, "{}: {error}", paint.bad("error"));
    }
    text
}

fn fix_text(fix: Fix) -> String {
    match fix {
        Fix::LeaseAtLeast(lease) => format!("lease >= {} s", plain(lease)),
        Fix::CountFromSend => "count from send".into(),
        Fix::CountFromSendAndGiveUp(hold) => {
            format!("count from send and give up within {} s", plain(hold))
        }
        Fix::GiveUpAtMost(hold) => format!("give up within {} s", plain(hold)),
    }
}

fn verdict(numbers: Inequality, paint: Paint) -> String {
    if numbers.is_safe() {
        return paint.good("SAFE");
    }
    let overlap = numbers.overlap();
    let rest = match overlap.as_nanos() {
        0 => "two leaders for an instant".into(),
        ns if overlap >= Duration::from_millis(50) => {
            format!("two leaders for up to {} s", fixed(ns, 1))
        }
        ns if overlap >= Duration::from_millis(1) => {
            format!("two leaders for up to {} ms", fixed(ns * 1_000, 1))
        }
        _ => format!("two leaders for up to {}", Exact(overlap)),
    };
    format!("{}: {rest}", paint.bad("UNSAFE"))
}

/// The margin with its sign; in nanoseconds where milliseconds would show nothing.
fn margin(numbers: Inequality) -> String {
    let ns = numbers.margin_ns();
    match ns.unsigned_abs() {
        0 => "0.000 s".into(),
        1..500_000 => format!("{ns:+} ns"),
        size if numbers.need_ns().is_some() => {
            format!("{}{} s", if ns < 0 { '-' } else { '+' }, fixed(size, 3))
        }
        _ => "infinitely negative".into(),
    }
}

/// Nanoseconds as seconds with so many decimals (at most 9), to the nearest.
fn fixed(ns: u128, decimals: u32) -> String {
    let unit = 10_u128.pow(9 - decimals);
    let rounded = (ns + unit / 2) / unit;
    let scale = 10_u128.pow(decimals);
    if decimals == 0 {
        return rounded.to_string();
    }
    format!("{}.{:0width$}", rounded / scale, rounded % scale, width = decimals as usize)
}

/// Seconds, exact and no longer than needed.
fn plain(duration: Duration) -> String {
    plain_ns(duration.as_nanos())
}

fn plain_ns(ns: u128) -> String {
    trimmed(&fixed(ns, 9)).into()
}

/// Without zeros at the end of the fraction.
fn trimmed(number: &str) -> &str {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    }
}

/// A rate with two significant digits, or as many as 0.001 leaves.
fn rate(per_second: f64) -> String {
    let decimals = if per_second < 0.095 { 3 } else { 2 };
    trimmed(&format!("{per_second:.decimals$}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_do() {
        assert_eq!(fixed(12_004_400_800, 3), "12.004");
        assert_eq!(fixed(2_995_599_200, 3), "2.996");
        assert_eq!(fixed(999_999_999, 3), "1.000");
        assert_eq!(fixed(1_500_000_000, 0), "2");
        assert_eq!(plain(Duration::from_millis(2_900)), "2.9");
        assert_eq!(plain(Duration::from_secs(100)), "100");
        assert_eq!(plain(Duration::ZERO), "0");
        assert_eq!(plain_ns(1_000_200_000), "1.0002");
        assert_eq!(
            (rate(0.5), rate(1.0 / 26.0), rate(10.0)),
            ("0.5".into(), "0.038".into(), "10".into())
        );
    }

    #[test]
    fn the_default_is_told_as_an_operator_would_work_it_out() {
        let lines = timing_lines(&Timing::DEFAULT, Paint::PLAIN);
        assert_eq!(
            lines[..3],
            [
                "L 15 s  G 10 s  R 5 s  S 2 s  rho 200 ppm  P 1 s   anchor send   clock BOOTTIME",
                "need  10*(1.0002/0.9998) + 2*1.0002 = 12.004 s    have 15.000 s    margin +2.996 s    SAFE",
                "takeover 14.997 .. 16.203 s (D_r = D_w = 0.1 s)   renewal at 5 s, retries until 10 s",
            ]
        );
    }

    #[test]
    fn a_margin_of_a_nanosecond_is_visible() {
        let numbers = |lease| Inequality { lease, ..Timing::DEFAULT.inequality() };
        let smallest = Timing::DEFAULT.smallest_lease().expect("a bound");
        assert_eq!(margin(numbers(smallest)), "+1 ns");
        assert_eq!(margin(numbers(smallest - Duration::from_nanos(1))), "0.000 s");
        assert_eq!(margin(numbers(smallest - Duration::from_nanos(3))), "-2 ns");
    }
}
