------------------------------ MODULE IrcFacts ------------------------------
(* Peerings between regions: the facts of one, as src/irc/facts.rs and src/irc/peering.rs have them. Each is
   written by one region, under its seal: "Own" is that of the region that writes these facts, under them as
   they are; "None" is under facts that nobody has written; under "Stale" the facts have changed since. *)
EXTENDS Integers, FiniteSets, Sequences, TLC

CONSTANTS
    Without,        \* the rules that are left out: {} for the protocol as it is
    None            \* a model value

Keeps(rule) == rule \notin Without

-----------------------------------------------------------------------------
(* Values *)

Empty == <<>>
Put(f, k, v) == (k :> v) @@ f
Drop(f, gone) == [k \in DOMAIN f \ gone |-> f[k]]
Get(f, k, default) == IF k \in DOMAIN f THEN f[k] ELSE default
LeastOf(numbers) == CHOOSE one \in numbers : \A other \in numbers : one <= other

(* An id is <<requester, n, seq>>; a record's <<n, seq>>; an operation's version <<n, op>>. *)
RECURSIVE Before(_, _)
Before(a, b) ==
    IF a = Empty THEN FALSE
    ELSE Head(a) < Head(b) \/ (Head(a) = Head(b) /\ Before(Tail(a), Tail(b)))
First(ids) == CHOOSE id \in ids : \A other \in ids : id = other \/ Before(id, other)

Incarnation(n, life) == [n |-> n, life |-> life]
Open == [name |-> "Open"]
Preparing(nonce) == [name |-> "Preparing", nonce |-> nonce]
Syncing(nonce, closed) == [name |-> "Syncing", nonce |-> nonce, closed |-> closed]

(* Which ids of one incarnation of a peer were seen: those below low, and some above. *)
Unseen == [low |-> 0, above |-> {}]
Settle(mark) ==
    LET above == {seq \in mark.above : seq >= mark.low}
        low == CHOOSE k \in mark.low..(mark.low + Cardinality(above)) :
                    k \notin above /\ \A seq \in mark.low..(k - 1) : seq \in above
    IN  [low |-> low, above |-> {seq \in above : seq > low}]
See(mark, seq) == Settle(IF seq >= mark.low THEN [mark EXCEPT !.above = @ \cup {seq}] ELSE mark)
Close(mark, below) == Settle(IF below > mark.low THEN [mark EXCEPT !.low = below] ELSE mark)
Covers(mark, seq) == seq < mark.low \/ seq \in mark.above
HasSeen(peer, id) == Covers(Get(peer.seen, id[2], Unseen), id[3])

-----------------------------------------------------------------------------
(* Facts, and what is derived from them *)

Blank == [deadline |-> None, decision |-> None, deleted |-> FALSE, seal |-> "None"]
IsBlank(d) == d.deadline = None /\ d.decision = None /\ ~d.deleted
IsDeadByA(d) == d.deleted \/ d.decision \notin {None, "Accepted"}
IsDead(p) == p.requested.deleted \/ IsDeadByA(p.decided)
IsUndecided(p) == p.decided.decision = None
WantsHalf(p) == p.decided.decision = "Accepted" /\ ~IsDead(p)
PeerOf(p, id) == IF p.side = "Requester" THEN p.requested.to ELSE id[1]
PairOf(p, id) == {id[1], p.requested.to}

NewPeering(side, requested) ==
    [side |-> side, requested |-> requested, decided |-> Blank, nextOp |-> 0, seen |-> None,
     confirmed |-> FALSE, terminal |-> None, deadSince |-> None, stuck |-> FALSE]

Label(p, half) ==
    LET d == p.decided
    IN  CASE p.terminal # None -> p.terminal
          [] p.terminal = None /\ d.decision \in {"Failed", "Rejected", "Expired"} -> d.decision
          [] p.terminal = None /\ d.decision = "Cancelled" -> "Deleted"
          [] p.terminal = None /\ d.decision \in {None, "Accepted"} ->
                IF IsDead(p) THEN IF p.confirmed /\ ~half THEN "Deleted" ELSE "Deleting"
                ELSE IF d.decision = "Accepted" THEN IF half THEN "Active" ELSE "Provisioning"
                ELSE IF p.side = "Requester" /\ d.deadline = None THEN "InitiatingRequest"
                ELSE "PendingAcceptance"

Rank(label) ==
    CASE label = "InitiatingRequest" -> 0
      [] label = "PendingAcceptance" -> 1
      [] label = "Provisioning" -> 2
      [] label = "Active" -> 3
      [] label = "Deleting" -> 4
      [] label \in {"Deleted", "Failed", "Expired", "Rejected"} -> 5
IsTerminal(label) == Rank(label) = 5

OwnFlag(p) == IF p.side = "Requester" THEN p.requested.deleted ELSE p.decided.deleted
Reseal(p) ==
    IF p.side = "Requester" THEN [p EXCEPT !.requested.seal = "Own"] ELSE [p EXCEPT !.decided.seal = "Own"]
Decide(p, decision) == Reseal([p EXCEPT !.decided.decision = decision])
Flagged(p) ==
    Reseal(IF p.side = "Requester" THEN [p EXCEPT !.requested.deleted = TRUE]
           ELSE [p EXCEPT !.decided.deleted = TRUE])
OwnBundle(p) ==
    IF p.side = "Requester" THEN [of |-> "Requester", facts |-> p.requested]
    ELSE [of |-> "Accepter", facts |-> p.decided]

(* What both know of facts that one side writes, and its seal with them. If each holds something that the other
   does not, the writer was restored and has gone another way: what is here stays as it is (I-43). *)
Mixed(mine, joined) == IF Keeps("I-43") THEN mine ELSE [joined EXCEPT !.seal = "Stale"]
JoinRequested(mine, theirs) ==
    LET joined == IF Keeps("I-2") THEN [mine EXCEPT !.deleted = @ \/ theirs.deleted] ELSE theirs
    IN  IF joined.deleted = theirs.deleted THEN theirs
        ELSE IF joined.deleted = mine.deleted THEN mine ELSE Mixed(mine, joined)

IsConflict(mine, theirs) == None \notin {mine.decision, theirs.decision} /\ mine.decision # theirs.decision
Known(mine, theirs) == IF mine = None THEN theirs ELSE mine
JoinDecided(mine, theirs) ==
    LET joined == [deadline |-> Known(mine.deadline, theirs.deadline),
                   decision |-> Known(mine.decision, theirs.decision),
                   deleted |-> mine.deleted \/ theirs.deleted, seal |-> "Stale"]
        Under(seal) == [joined EXCEPT !.seal = seal]
    IN  IF ~Keeps("I-2") \/ Under(theirs.seal) = theirs THEN theirs
        ELSE IF Under(mine.seal) = mine THEN mine ELSE Mixed(mine, joined)
=============================================================================
