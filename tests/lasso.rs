//! The search for loops, on graphs that are drawn by hand.

use std::ops::ControlFlow;

use stateright::{Checker as _, Model, Property};
use tenure::models::engine::Limits;
use tenure::models::lasso::{Lasso, Question, search};

/// A graph by hand: its edges, the states in which it happens, and those beyond the bounds.
struct Drawn {
    edges: &'static [(u8, u8)],
    happens: &'static [u8],
    beyond: &'static [u8],
}

impl Model for Drawn {
    type State = u8;
    type Action = u8;
    fn init_states(&self) -> Vec<u8> {
        vec![0]
    }
    fn actions(&self, state: &u8, actions: &mut Vec<u8>) {
        actions.extend(self.edges.iter().filter(|(from, _)| from == state).map(|(_, to)| to));
    }
    fn next_state(&self, _: &u8, to: u8) -> Option<u8> {
        Some(to)
    }
    fn within_boundary(&self, state: &u8) -> bool {
        !self.beyond.contains(state)
    }
    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::eventually("happens", |model: &Self, state| model.happens.contains(state))]
    }
}

impl Drawn {
    /// The states of the lasso, and where it goes back to.
    fn asked(
        &self,
        again: bool,
        needs: Option<&dyn Fn(&u8) -> bool>,
    ) -> Option<(Vec<u8>, Option<usize>)> {
        let happens = |state: &u8| self.happens.contains(state);
        let question = Question { happens: &happens, again, needs };
        let go_on = |_| ControlFlow::Continue(());
        let report = search(self, vec![0], &question, Limits::default(), go_on);
        assert_eq!(report.incomplete, None);
        let Lasso { path, back_to } = report.lasso?;
        let mut states = vec![path.start];
        for (action, state) in path.steps {
            let edge = (states[states.len() - 1], state);
            assert!(self.edges.contains(&edge) && action == state, "a real transition");
            states.push(state);
        }
        if let Some(back_to) = back_to {
            assert_eq!(states[back_to], states[states.len() - 1], "it comes back");
        }
        Some((states, back_to))
    }

    fn missed_by_stateright(self) -> bool {
        self.checker().spawn_bfs().join().discovery("happens").is_none()
    }
}

//= SPEC EXPLORER-16 test
#[test]
fn a_cycle_that_leaves_it_out_is_found() {
    let drawn = || Drawn { edges: &[(0, 1), (1, 2), (2, 1), (2, 3)], happens: &[3], beyond: &[] };
    assert_eq!(drawn().asked(false, None), Some((vec![0, 1, 2, 1], Some(1))));
    assert!(drawn().missed_by_stateright());
}

//= SPEC EXPLORER-16 test
#[test]
fn where_two_ways_join_the_one_without_it_is_found() {
    let drawn = || Drawn { edges: &[(0, 1), (0, 2), (1, 3), (2, 3)], happens: &[1], beyond: &[] };
    assert_eq!(drawn().asked(false, None), Some((vec![0, 2, 3], None)));
    assert!(drawn().missed_by_stateright());
}

#[test]
fn again_and_again_is_more_than_once() {
    let drawn = Drawn { edges: &[(0, 1), (1, 2), (2, 3), (3, 2)], happens: &[1], beyond: &[] };
    assert_eq!(drawn.asked(false, None), None, "it happens once on every way");
    assert_eq!(drawn.asked(true, None), Some((vec![0, 1, 2, 3, 2], Some(2))));
    let always = Drawn { edges: &[(0, 1), (1, 0)], happens: &[1], beyond: &[] };
    assert_eq!(always.asked(true, None), None, "every loop meets it");
}

#[test]
fn the_way_is_the_shortest_and_so_is_the_loop() {
    let edges = &[(0, 1), (1, 2), (2, 3), (3, 4), (4, 2), (3, 2), (0, 5), (5, 6), (6, 7), (7, 6)];
    let drawn = Drawn { edges, happens: &[], beyond: &[] };
    assert_eq!(drawn.asked(false, None), Some((vec![0, 1, 2, 3, 2], Some(2))));
}

#[test]
fn a_loop_without_what_it_needs_is_none() {
    // Only the action 4 lets time pass.
    let edges = &[(0, 1), (1, 0), (0, 3), (3, 4), (4, 3)];
    let drawn = Drawn { edges, happens: &[], beyond: &[] };
    let is_tick = |action: &u8| *action == 4;
    assert_eq!(drawn.asked(false, None), Some((vec![0, 1, 0], Some(0))));
    assert_eq!(drawn.asked(false, Some(&is_tick)), Some((vec![0, 3, 4, 3], Some(1))));
    // A tick after which all is the same is a loop of its own; another step that changes nothing is not.
    let idle = Drawn { edges: &[(0, 4), (4, 4)], happens: &[], beyond: &[] };
    assert_eq!(idle.asked(false, Some(&is_tick)), Some((vec![0, 4, 4], Some(1))));
    assert_eq!(idle.asked(false, None), Some((vec![0, 4], None)), "nothing changes any more");
}

#[test]
fn where_the_model_ends_nothing_is_said() {
    let drawn = Drawn { edges: &[(0, 1), (1, 2)], happens: &[], beyond: &[2] };
    assert_eq!(drawn.asked(false, None), None);
}
