use super::*;

use proptest::prelude::*;

/// The default with some fields changed.
macro_rules! timing {
    ($($field:ident $(: $value:expr)?),* $(,)?) => {
        Timing { $($field $(: $value)?,)* ..Timing::DEFAULT }
    };
}

const NS: Duration = Duration::from_nanos(1);

fn secs(text: &str) -> Duration {
    crate::duration::parse(text).expect("a duration")
}

fn needs(give_up: &str, hook: &str, clock_error_ppm: u32) -> Duration {
    timing! { give_up: secs(give_up), hook: secs(hook), clock_error_ppm }
        .smallest_lease()
        .expect("a bound")
}

fn errors_of(timing: Timing) -> Vec<TimingError> {
    timing.validate().expect_err("must be refused").iter().cloned().collect()
}

#[test]
fn the_default_is_safe_with_room() {
    let checked = Timing::DEFAULT.validate().expect("safe");
    assert_eq!(checked.get(), Timing::default());
    assert_eq!(checked.smallest_lease(), Some(secs("12.004400801s")));
    // The need is 12.0044008001600320...
    assert_eq!(checked.margin_ns(), 2_995_599_200);
    assert_eq!(checked.takeover_earliest(), secs("14.997000599s"));
    let tenth = Duration::from_millis(100);
    assert_eq!(checked.takeover_latest(tenth, tenth), secs("16.203200641s"));
    assert_eq!(checked.handover_gap(tenth, tenth), secs("2.2s"));
    assert_eq!(checked.self_fence(), secs("12.002000401s"));
}

#[test]
fn drift_is_nearly_free_and_hook_time_costs() {
    // G = 10 s at 200 ppm: 10.004 s and S; at 1 %: 10.202 s and 1.01 * S.
    assert_eq!(needs("10s", "0s", 200), secs("10.004000801s"));
    assert_eq!(needs("10s", "2s", 200), secs("12.004400801s"));
    assert_eq!(needs("10s", "0s", 10_000), secs("10.202020203s"));
    assert_eq!(needs("10s", "3s", 10_000), secs("10.202020203s") + secs("3.03s"));
    assert_eq!(needs("107s", "0s", 200), secs("107.042808562s"));
    assert_eq!(needs("2.5s", "0s", 200), secs("2.501000201s"));
    // Without drift the need is a whole number, and equality is not enough.
    assert_eq!(needs("10s", "2s", 0), secs("12s") + NS);
}

#[test]
fn two_fractions_can_make_a_whole() {
    // hold*3/1 and hook*1.5 at 50 %: 3 + 1.5, and with two hooks' worth of nanoseconds 3 + 3.
    let numbers = Inequality { lease: NS, hold: NS, hook: NS, clock_error_ppm: 500_000 };
    assert_eq!(numbers.smallest_lease(), Some(5 * NS));
    assert_eq!(Inequality { hook: 2 * NS, ..numbers }.smallest_lease(), Some(7 * NS));
}

//= SPEC TIME-1 test
#[test]
fn accepted_at_the_smallest_lease_and_refused_one_nanosecond_below() {
    for clock_error_ppm in [0, 1, 200, 10_000, 100_000] {
        for hook in [Duration::ZERO, NS, secs("2s"), secs("2.9s")] {
            let timing = timing! { hook, clock_error_ppm };
            let lease = timing.smallest_lease().expect("a bound");
            assert!(Timing { lease, ..timing }.validate().is_ok());
            let below = Timing { lease: lease - NS, ..timing };
            let give_up_max = below.largest_give_up();
            assert!(give_up_max.is_some_and(|hold| hold < below.give_up));
            let numbers = below.inequality();
            assert_eq!(errors_of(below), [TimingError::Unsafe { numbers, give_up_max }]);
        }
    }
}

#[test]
fn an_unsafe_set_says_what_it_needs_and_what_it_has() {
    let text = timing! { lease: secs("12s") }.validate().expect_err("unsafe").to_string();
    assert_eq!(
        text,
        "not safe: give_up 10s, hook 2s and clocks off by 200 ppm need a lease of at least \
         12.004400801s, and it is 12s; raise lease, or lower give_up to at most 9.995600959s"
    );
    let text = timing! { lease: secs("2s") }.validate().expect_err("unsafe").to_string();
    assert!(text.ends_with("; raise lease, or shorten the hook"), "{text}");
}

#[test]
fn zero_durations_are_refused_by_name() {
    let zero = Duration::ZERO;
    let names = |timing| -> Vec<_> {
        let zero = |e: &TimingError| match e {
            TimingError::Zero { name } => Some(*name),
            _ => None,
        };
        errors_of(timing).iter().filter_map(zero).collect()
    };
    assert_eq!(names(timing! { lease: zero }), ["lease"]);
    assert_eq!(names(timing! { give_up: zero }), ["give_up"]);
    assert_eq!(names(timing! { renew: zero }), ["renew"]);
    assert_eq!(names(timing! { retry: zero }), ["retry"]);
    assert_eq!(names(timing! { poll: zero }), ["poll"]);
    assert!(timing! { jitter: zero, hook: zero }.validate().is_ok());
}

#[test]
fn absurd_lengths_are_refused_and_do_not_overflow() {
    let lease = Timing::DURATION_MAX;
    assert!(timing! { lease }.validate().is_ok());
    let have = lease + NS;
    assert_eq!(errors_of(timing! { lease: have }), [TimingError::TooLong { name: "lease", have }]);
    let have = Duration::MAX;
    let all = Timing {
        lease: have,
        give_up: have,
        renew: have,
        retry: have,
        poll: have,
        jitter: have,
        hook: have,
        clock_error_ppm: u32::MAX,
    };
    let errors = errors_of(all);
    assert_eq!(errors.iter().filter(|e| matches!(e, TimingError::TooLong { .. })).count(), 7);
    for clock_error_ppm in [0, 999_999, 1_000_000, u32::MAX] {
        let all = Timing { clock_error_ppm, ..all };
        assert!(!all.inequality().is_safe());
        assert_eq!(all.takeover_latest(have, have), Duration::MAX);
        assert_eq!(all.self_fence(), Duration::MAX);
        assert!(all.takeover_earliest() <= have);
        assert!(all.validate().is_err_and(|errors| !errors.to_string().is_empty()));
    }
}

#[test]
fn a_clock_off_by_more_than_a_tenth_is_refused() {
    assert!(timing! { clock_error_ppm: 100_000 }.validate().is_ok());
    for have_ppm in [100_001, 999_999, 1_000_000, u32::MAX] {
        let errors = errors_of(timing! { clock_error_ppm: have_ppm });
        assert!(errors.contains(&TimingError::ClockError { have_ppm }));
    }
    assert_eq!(timing! { clock_error_ppm: 1_000_000 }.smallest_lease(), None);
    assert_eq!(timing! { clock_error_ppm: 1_000_000 }.margin_ns(), i128::MIN);
}

#[test]
fn a_lost_renewal_can_be_sent_again() {
    let give_up = secs("10s");
    let renew = secs("8s");
    assert!(timing! { renew }.validate().is_ok());
    let renew = renew + NS;
    assert_eq!(
        errors_of(timing! { renew }),
        [TimingError::NoSecondAttempt { renew, retry: secs("1s"), give_up, needed: give_up + NS }]
    );
    assert_eq!(
        errors_of(timing! { renew: give_up }),
        [TimingError::Renew { renew: give_up, give_up }]
    );
    let retry = give_up + NS;
    assert_eq!(errors_of(timing! { retry }), [TimingError::Retry { retry, give_up }]);
}

#[test]
fn jitter_leaves_a_pause_in_every_loop() {
    let names = |timing| -> Vec<_> {
        let jitter = |e: &TimingError| match e {
            TimingError::Jitter { name, .. } => Some(*name),
            _ => None,
        };
        errors_of(timing).iter().filter_map(jitter).collect()
    };
    assert_eq!(names(timing! { jitter: secs("1s") }), ["retry", "poll"]);
    assert_eq!(names(timing! { jitter: secs("5s") }), ["renew", "retry", "poll"]);
    assert!(timing! { jitter: secs("999ms") }.validate().is_ok());
}

//= SPEC TIME-2 test
#[test]
fn every_error_is_reported_at_once() {
    let timing = timing! { lease: secs("3s"), poll: Duration::ZERO, renew: secs("11s"), clock_error_ppm: 200_000 };
    assert_eq!(errors_of(timing).len(), 4);
}

/// Whether a set is safe, the dumb way: fractions as (numerator, denominator) pairs of integers
/// wide enough for small inputs, compared by cross-multiplication.
fn is_safe_with_fractions(lease: u64, give_up: u64, hook: u64, ppm: u32) -> bool {
    type Fraction = (i128, i128);
    let mul = |a: Fraction, b: Fraction| (a.0 * b.0, a.1 * b.1);
    let add = |a: Fraction, b: Fraction| (a.0 * b.1 + b.0 * a.1, a.1 * b.1);
    let div = |a: Fraction, b: Fraction| (a.0 * b.1, a.1 * b.0);
    let whole = |n: u64| (i128::from(n), 1);
    let rho = (i128::from(ppm), 1_000_000);
    let fast = add((1, 1), rho);
    let slow = add((1, 1), (-rho.0, rho.1));
    let need = add(div(mul(whole(give_up), fast), slow), mul(whole(hook), fast));
    i128::from(lease) * need.1 > need.0
}

/// Any clock error, and often one with which the need is a whole number: there strictness counts.
fn clock_error() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(500_000), 0_u32..900_000]
}

#[test]
fn work_has_what_s_leaves_it_by_a_slow_clock() {
    assert_eq!(Timing::DEFAULT.stop_within(), secs("1.9496s"));
    assert_eq!(
        timing! { hook: secs("30s"), clock_error_ppm: 10_000 }.stop_within(),
        secs("29.65s")
    );
    assert_eq!(timing! { hook: secs("50ms") }.stop_within(), Duration::ZERO);
    assert_eq!(timing! { clock_error_ppm: u32::MAX }.stop_within(), Duration::ZERO);
}

proptest! {
    //= SPEC GUARD-22 test
    #[test]
    fn a_kill_that_is_timed_by_a_slow_clock_has_ended_the_work_within_s(
        hook in 0_u64..40_000_000_000_000_000, ppm in 0..=Timing::CLOCK_ERROR_MAX_PPM,
    ) {
        let timing = timing! { hook: Duration::from_nanos(hook), clock_error_ppm: ppm };
        let (kill, takes) = (timing.stop_within().as_nanos(), Timing::KILL_TAKES.as_nanos());
        // kill/(1-rho) + takes <= S, with everything brought to whole numbers.
        let slow = MILLION - u128::from(ppm);
        if kill > 0 {
            prop_assert!(kill * MILLION + takes * slow <= u128::from(hook) * slow);
        }
        // And no more is taken from the hooks than that needs.
        prop_assert!((kill + takes + 1) * MILLION > u128::from(hook) * slow);
    }

    //= SPEC TIME-1 test
    #[test]
    fn the_closed_form_agrees_with_fractions(
        lease in 0_u64..2_000_000_000, give_up in 0_u64..1_000_000_000,
        hook in 0_u64..100_000_000, ppm in clock_error(), near in any::<bool>(), by in 0_u64..3,
    ) {
        let of = |lease| Inequality {
            lease: Duration::from_nanos(lease),
            hold: Duration::from_nanos(give_up),
            hook: Duration::from_nanos(hook),
            clock_error_ppm: ppm,
        };
        // Half of the cases lie within a nanosecond of the border, where mistakes live.
        let smallest = of(lease).smallest_lease().expect("a bound").as_nanos() as u64;
        let lease = if near { (smallest + by).saturating_sub(1) } else { lease };
        let safe = is_safe_with_fractions(lease, give_up, hook, ppm);
        prop_assert_eq!(of(lease).is_safe(), safe);
        prop_assert_eq!(lease >= smallest, safe);
        prop_assert_eq!(of(lease).margin_ns() > 0, safe);
        // The bounds are rounded outwards by less than a nanosecond each.
        if of(lease).margin_ns() > 5 {
            prop_assert!(of(lease).last_act() < of(lease).takeover_earliest());
        }
        prop_assert!(!safe || of(lease).overlap().is_zero());
    }

    #[test]
    fn the_smallest_lease_is_found_by_counting(give_up in 0_u64..40, hook in 0_u64..40, ppm in clock_error()) {
        let smallest = (0..).find(|&lease| is_safe_with_fractions(lease, give_up, hook, ppm));
        let numbers = Inequality {
            lease: Duration::ZERO,
            hold: Duration::from_nanos(give_up),
            hook: Duration::from_nanos(hook),
            clock_error_ppm: ppm,
        };
        prop_assert_eq!(numbers.smallest_lease(), smallest.map(Duration::from_nanos));
    }

    #[test]
    fn the_largest_hold_is_found_by_counting(lease in 0_u64..60, hook in 0_u64..40, ppm in clock_error()) {
        let largest = (0..100).rev().find(|&hold| is_safe_with_fractions(lease, hold, hook, ppm));
        let numbers = Inequality {
            lease: Duration::from_nanos(lease),
            hold: Duration::ZERO,
            hook: Duration::from_nanos(hook),
            clock_error_ppm: ppm,
        };
        prop_assert_eq!(numbers.largest_hold(), largest.map(Duration::from_nanos));
    }

    #[test]
    fn the_largest_hook_is_found_by_counting(lease in 0_u64..60, hold in 0_u64..40, ppm in clock_error()) {
        let largest = (0..100).rev().find(|&hook| is_safe_with_fractions(lease, hold, hook, ppm));
        let numbers = Inequality {
            lease: Duration::from_nanos(lease),
            hold: Duration::from_nanos(hold),
            hook: Duration::ZERO,
            clock_error_ppm: ppm,
        };
        prop_assert_eq!(numbers.largest_hook(), largest.map(Duration::from_nanos));
    }

    #[test]
    fn the_largest_clock_error_is_safe_and_one_more_is_not(lease in 0_u64..99, hold in 0_u64..40, hook in 0_u64..40) {
        let numbers = Inequality {
            lease: Duration::from_nanos(lease),
            hold: Duration::from_nanos(hold),
            hook: Duration::from_nanos(hook),
            clock_error_ppm: 0,
        };
        match numbers.largest_clock_error_ppm() {
            None => prop_assert!(!is_safe_with_fractions(lease, hold, hook, 0)),
            Some(999_999) => prop_assert!(is_safe_with_fractions(lease, hold, hook, 999_999)),
            Some(ppm) => {
                prop_assert!(is_safe_with_fractions(lease, hold, hook, ppm));
                prop_assert!(!is_safe_with_fractions(lease, hold, hook, ppm + 1));
            }
        }
    }

    #[test]
    fn no_numbers_panic(
        a in any::<Duration>(), b in any::<Duration>(), c in any::<Duration>(), ppm in any::<u32>(),
    ) {
        let timing = timing! { lease: a, give_up: b, hook: c, poll: a, renew: c, clock_error_ppm: ppm };
        let _ = (timing.validate(), timing.takeover_latest(b, c), timing.self_fence());
        let numbers = timing.inequality();
        let _ = (numbers.overlap(), numbers.largest_hold(), numbers.largest_hook());
        let _ = numbers.largest_clock_error_ppm();
        let _ = (timing.handover_gap(a, b), timing.stop_within());
    }
}
