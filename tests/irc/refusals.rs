//! Calls that are refused: a typed error, nothing stored, nothing told that is not the caller's to know.

use super::net::*;

fn is_untouched(net: &Net, region: usize) -> bool {
    let ledger = &net.control(region).ledger;
    ledger.peerings.is_empty() && ledger.records.is_empty() && ledger.audit.is_empty()
}

#[test]
fn a_request_that_cannot_be_is_refused_before_anything_is_stored() {
    let mut net = Net::with(2, &|control| control.policy.quota = [1, 50, 500]);
    let request = |region, network, own| Request::Create {
        network: Network(own),
        target: Target { region: Region(region), account: ALICE, network: Network(network) },
        resolve_names: false,
    };
    let refused = [
        (ALICE, request(0, 2, 1), CallError::SelfPeering),
        (ALICE, request(7, 1, 1), CallError::UnknownRegion),
        (ALICE, request(1, 1, 99), CallError::NotFound),
        (BOB, request(1, 1, 1), CallError::NotOwner),
    ];
    for (caller, request, error) in refused {
        assert_eq!(net.ask(0, caller, request), Err(error));
        assert!(is_untouched(&net, 0), "{error:?}");
    }
    let first = net.create(0, 1, 1);
    let before = net.control(0).ledger.clone();
    assert_eq!(net.ask(0, ALICE, request(1, 1, 1)), Err(CallError::PairBusy(first)));
    assert_eq!(net.ask(0, ALICE, request(1, 2, 1)), Err(CallError::QuotaExceeded));
    assert_eq!(net.change(0, first, Verb::Accept), Err(CallError::WrongSide));
    assert_eq!(net.control(0).ledger, before);
}

#[test]
fn addresses_that_overlap_fail_at_the_accepter_and_nobody_learns_why() {
    let mut net = Net::with(2, &|control| {
        // Network 1 of either region has the same addresses.
        let block = block_of(Network(200));
        control.networks.insert(Network(1), (ALICE, block));
    });
    let id = net.create(0, 1, 1);
    net.settle();
    assert_eq!(net.label(0, id), Some(Label::Failed));
    // What R knows of A is the decision, and that is the same as for a network that is not there.
    let decided = |net: &Net, id| net.control(0).ledger.peerings.get(&id).expect("here").decided;
    let overlapping = decided(&net, id).facts;
    let target = Target { region: Region(1), account: ALICE, network: Network(999) };
    let absent = Request::Create { network: Network(2), target, resolve_names: false };
    let absent = match net.ask(0, ALICE, absent) {
        Ok(Answer::Done { id, .. }) => id,
        other => panic!("{other:?}"),
    };
    net.settle();
    assert_eq!(overlapping, decided(&net, absent).facts);
    // A's owner never hears of it.
    assert_eq!(net.ask(1, ALICE, Request::Get { id }), Err(CallError::NotFound));
    let Ok(Answer::Many { peerings, .. }) = net.ask(1, ALICE, Request::List { after: None }) else {
        panic!("a list")
    };
    assert!(peerings.is_empty());
    // And it blocks nothing: not a deletion, and not the pair.
    assert_eq!(net.change(0, id, Verb::Delete), Ok(Label::Failed));
    net.create(0, 1, 1);
}

//= SPEC IRC-32 test
#[test]
fn every_transition_has_one_entry_with_its_cause() {
    use tenure::irc::audit::{Cause, verify};
    let mut net = Net::new(2);
    let id = net.create(0, 1, 1);
    net.settle();
    net.change(1, id, Verb::Accept).expect("accepted");
    net.settle();
    net.change(0, id, Verb::Delete).expect("deleted");
    net.settle();
    for _ in 0..4 {
        net.tick(0);
    }
    let ledger = &net.control(0).ledger;
    let entries: Vec<_> = ledger.audit.iter().map(|(_, entry)| *entry).collect();
    let seen: Vec<_> = entries.iter().map(|entry| entry.to).collect();
    use Label::{Active, Deleted, Deleting, InitiatingRequest, PendingAcceptance, Provisioning};
    let course =
        [InitiatingRequest, PendingAcceptance, Provisioning, Active, Deleting, Deleted].map(Some);
    assert_eq!(seen, course.into_iter().chain([None]).collect::<Vec<_>>());
    let causes: Vec<_> = entries.iter().map(|entry| entry.cause).collect();
    assert!(matches!(
        causes[..],
        [
            Cause::Call { caller: ALICE, .. },
            Cause::Region { from: Region(1), .. },
            Cause::Region { from: Region(1), .. },
            Cause::Half,
            Cause::Call { caller: ALICE, .. },
            Cause::Region { from: Region(1), .. },
            Cause::Clock
        ]
    ));
    let numbered = ledger.audit.iter().map(|(&number, entry)| (number, entry));
    assert_eq!(verify(numbered, ledger.head.audited), Ok(()));
    // A start reads it back, and goes on where it was.
    let before = ledger.head.audited;
    net.start(0);
    assert_eq!(net.control(0).ledger.head.audited, before);
}
