//! How the timed model counts: outwards, and never past what is due.

use std::time::Duration;

use stateright::Model;
use tenure::models::registry;
use tenure::models::world::{Action, Condition, Time, World, earliest_ticks, latest_ticks};

const MS: Duration = Duration::from_millis(1);

//= SPEC TIME-12 test
#[test]
fn a_window_is_rounded_outwards() {
    for ppm in [0, 1, 200, 10_000, 100_000, 500_000] {
        for micros in [1, 999, 1000, 1001, 2500, 10_000, 14_999] {
            let asked = Duration::from_micros(micros);
            let (asked_ns, rho) = (asked.as_nanos(), u128::from(ppm));
            let earliest = u128::from(earliest_ticks(asked, MS, ppm));
            let latest = u128::from(latest_ticks(asked, MS, ppm));
            // asked/(1+rho) lies in [earliest, earliest + 1), and asked/(1-rho) in (latest - 1, latest].
            let (fast, slow) = (1_000_000 + rho, 1_000_000 - rho);
            let real = asked_ns * 1_000_000;
            let tick = MS.as_nanos();
            assert!(earliest * tick * fast <= real && real < (earliest + 1) * tick * fast);
            assert!((latest - 1) * tick * slow < real && real <= latest * tick * slow);
        }
    }
}

//= SPEC TIME-13 test
#[test]
fn time_waits_for_what_is_due() {
    let rows = registry::safe();
    let row = rows.iter().find(|row| row.name == "timely-2-stable").expect("it is registered");
    let world = World { canonical: false, ..(row.world)() };
    assert!(matches!(world.time, Time::Timed { .. }));
    // Walks one long run, taking each kind of action in turn, and looks at every state on the way.
    let mut state = world.init_states().remove(0);
    let (mut passed, mut held_up) = (0, 0);
    for n in 0..2_000 {
        let mut actions = Vec::new();
        world.actions(&state, &mut actions);
        let timer_due = state.nodes.iter().any(|node| {
            node.condition == Condition::Running && node.timers.iter().any(|(_, w)| w.latest == 0)
        });
        let message_due = state.network.iter().any(|flight| flight.latest == 0);
        let may_elapse = actions.contains(&Action::Elapse);
        assert_eq!(may_elapse, !(timer_due || message_due));
        passed += u32::from(may_elapse);
        held_up += u32::from(!may_elapse);
        let next = if may_elapse { Action::Elapse } else { actions[n % actions.len()] };
        state = world.next_state(&state, next).expect("an action that is offered is possible");
    }
    assert!(passed > 100 && held_up > 100, "{passed} {held_up}");
}
