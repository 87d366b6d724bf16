//! A customer's node: which answer is for which call.

use tenure::irc::customer::Customer;

use super::net::*;

//= SPEC IRC-48 test
#[test]
fn an_answer_for_an_earlier_life_answers_nothing() {
    let customer = Party::Customer(Customer { control: NodeId(0), retry: Duration::from_secs(1) });
    let (me, control) = (Id::from(CUSTOMER), Id::from(0));
    let take = |state, src, msg| step(&customer, me, state, Input::Deliver { src, msg });
    let begin = |token| {
        let (state, _) = step(&customer, me, None, Input::Start(None));
        let submit = Msg::Submit { caller: ALICE, token: Token(token), request: wish(1, 1) };
        let (state, effects) = take(Some(state), me, submit);
        let asked = effects.iter().find_map(|effect| match effect {
            Effect::Send(_, Msg::Ask { n, .. }) => Some(*n),
            _ => None,
        });
        (state, asked.expect("it asks"))
    };
    let waits = |state: &PartyState| match state {
        PartyState::Customer(state) => state.queue.len(),
        _ => panic!("a customer"),
    };
    let told = |n| Msg::Told { n, result: Err(CallError::Unavailable) };
    let (_, earlier) = begin(1);
    let (state, now) = begin(2);
    let (state, _) = take(Some(state), control, told(earlier));
    assert_eq!(waits(&state), 1, "that was another call");
    let (state, _) = take(Some(state), control, told(now));
    assert_eq!(waits(&state), 0);
}
