//! What operators command, and what the audit log says of it.

use tenure::irc::audit::{Cause, Entry, verify};

use super::net::*;

fn entries(net: &Net, region: usize) -> Vec<Entry> {
    let ledger = &net.control(region).ledger;
    let all = || ledger.audit.iter().map(|(&number, entry)| (number, entry));
    assert_eq!(verify(all(), ledger.head.audited), Ok(()));
    all().map(|(_, entry)| *entry).collect()
}

fn operate(net: &mut Net, command: Command) -> Vec<Entry> {
    let before = entries(net, 0).len();
    net.deliver(0, 0, Msg::Operate(command));
    entries(net, 0).split_off(before)
}

//= SPEC IRC-33 test
#[test]
fn a_command_that_changes_something_has_an_entry_and_others_have_none() {
    let mut net = Net::new(3);
    let id = accepted(&mut net, 1);
    for command in [Command::Drain(true), Command::Drain(false)] {
        let written = operate(&mut net, command);
        assert_eq!(written.len(), 1);
        assert_eq!((written[0].id, written[0].cause), (None, Cause::Operator(command)));
        assert!(operate(&mut net, command).is_empty(), "it was so before");
    }
    let missing = RecordId { n: 1, seq: 77 };
    for command in [Command::Redrive(missing), Command::Discard(missing), Command::Thaw] {
        assert!(operate(&mut net, command).is_empty(), "{command:?}");
    }
    // A record that was set aside: the entry names its peering, which looks as before.
    net.change(0, id, Verb::Delete).expect("deleted");
    let record = *net.control(0).ledger.records.iter().next().expect("a record").0;
    let work = Work::Record(record);
    for _ in 0..5 {
        net.deliver(3, 0, Msg::Poll { kinds: vec![Kind::PEERING], max: 1 });
        net.fire(0, Timer::Lease(work));
    }
    assert!(net.control(0).ledger.records.get(&record).expect("there").parked);
    let written = operate(&mut net, Command::Redrive(record));
    assert_eq!(written.len(), 1);
    let labels = (Some(Label::Deleting), Some(Label::Deleting));
    assert_eq!((written[0].id, written[0].from, written[0].to), (Some(id), labels.0, labels.1));
    // A command's entry stands before those of what it changes for owners.
    let command = Command::Dispose(Region(1));
    let written = operate(&mut net, command);
    let causes: Vec<_> = written.iter().map(|entry| (entry.id, entry.cause)).collect();
    assert_eq!(causes, [(None, Cause::Operator(command)), (Some(id), Cause::Operator(command))]);
    assert!(operate(&mut net, command).is_empty(), "it is disposed of already");
}

//= SPEC IRC-34 test
#[test]
fn a_freeze_of_an_operator_lasts_until_the_thaw() {
    let mut net = Net::new(2);
    let id = accepted(&mut net, 1);
    net.deliver(0, 0, Msg::Operate(Command::Freeze(Region(1))));
    net.settle();
    let link = |net: &Net| net.control(0).ledger.peers.get(&Region(1)).expect("known").link.clone();
    assert!(matches!(link(&net), Link::Syncing { .. }), "the peer has promised, and no more");
    net.start(0);
    net.settle();
    assert!(matches!(link(&net), Link::Syncing { .. }), "over a restart too");
    // Only a deletion is taken.
    assert_eq!(net.ask(0, ALICE, wish(1, 2)), Err(CallError::Frozen(Region(1))));
    net.change(0, id, Verb::Delete).expect("deleted");
    net.deliver(0, 0, Msg::Operate(Command::Thaw));
    net.settle();
    assert_eq!(link(&net), Link::Open);
    assert_eq!(net.labels(id), both(Label::Deleted));
}

/// What an earlier life has left to say is said under the number of the next one: a notice of that one was refused as old.
//= SPEC IRC-20 test
#[test]
fn a_notice_of_a_new_life_is_newer_than_what_was_left_to_say() {
    let mut net = Net::new(2);
    let publish = |value| Request::Publish { to: Region(1), value };
    let read = |net: &Net, id| net.control(1).ledger.notices.get(&id).map(|one| one.value);
    let Ok(Answer::Done { id, .. }) = net.ask(0, ALICE, publish(5)) else { panic!("published") };
    net.settle();
    let server = net.server(0);
    net.down.insert(server);
    for value in [6, 7] {
        net.ask(0, ALICE, publish(value)).expect("published");
    }
    net.deliver(0, 0, Msg::Operate(Command::Freeze(Region(1))));
    net.deliver(0, 0, Msg::Operate(Command::Thaw));
    net.down.clear();
    net.settle();
    assert_eq!(read(&net, id), Some(7));
    net.ask(0, ALICE, publish(8)).expect("published");
    net.settle();
    assert_eq!(read(&net, id), Some(8));
}

#[test]
fn a_restore_is_in_the_audit_log() {
    let mut net = Net::new(2);
    accepted(&mut net, 1);
    let backup = net.saved[0].clone().expect("saved");
    let before = entries(&net, 0).len();
    net.restore(0, &backup, 2, 9);
    let written = entries(&net, 0).split_off(before);
    assert_eq!(written.iter().map(|entry| entry.cause).collect::<Vec<_>>(), [Cause::Restored]);
    assert_eq!(written[0].incarnation.n, 2);
}
