-------------------------------- MODULE Irc ---------------------------------
(* Peerings between regions, in a world as models/irc has it: control planes with the freest carrier that there
   can be. Whatever a region has to say is under way from that moment on, and arrives at any time, any
   number of times, or never. Nothing here knows a duration. *)
EXTENDS IrcControl

CONSTANTS
    Regions,        \* 0..n-1, as in Rust; network n is the only one of region n
    Wishes,         \* what customers ask, each once: see WishOf
    MaxClock,       \* the bound of a model: how far a region's clock runs
    MayRestore, Restores,   \* which regions are put back to their backup, and how often each
    EarlyBackup,    \* the backup is the first ledger with a request; otherwise it is taken at any moment
    MayCrash, Crashes       \* which control planes crash, and how often in all

VARIABLES
    ledger,     \* of each region all that it has on its disk
    up,         \* of each region whether its control plane runs
    armed,      \* of each region whether its clock runs
    network,    \* the messages under way
    crashes,    \* how many crashes are left
    ghost       \* what was wished, the backups, and whether something has gone wrong

vars == <<ledger, up, armed, network, crashes, ghost>>

-----------------------------------------------------------------------------
(* What is wished *)

(* A server of R says, in the name of its region, that A has accepted. *)
Lie == [type |-> "Call", from |-> 0, inc |-> Incarnation(1, 0), work |-> <<"Record", 1, 9>>, epoch |-> 0,
        errand |-> [type |-> "Apply", id |-> <<0, 1, 0>>, op |-> 9, closedBelow |-> 0,
                    body |-> [of |-> "Accepter", facts |-> [Blank EXCEPT !.decision = "Accepted", !.deadline = Pending]]]]

(* Where a customer asks, and what comes of it. *)
PlaceOf(wish) == IF wish \in {"create", "create_again", "delete_by_r", "accept_back"} THEN 0 ELSE 1
WishOf(wish, c) ==
    CASE wish = "create" -> Create(c, 0, 1)
      [] wish = "create_again" -> Create(c, 0, 1)
      [] wish = "create_back" -> Create(c, 1, 0)
      [] wish = "accept" -> Change(c, 1, <<0, 1, 0>>, "Accepted")
      [] wish = "accept_again" -> Change(c, 1, <<0, 1, 1>>, "Accepted")
      [] wish = "accept_back" -> Change(c, 0, <<1, 1, 0>>, "Accepted")
      [] wish = "reject" -> Change(c, 1, <<0, 1, 0>>, "Rejected")
      [] wish = "delete_by_r" -> Change(c, 0, <<0, 1, 0>>, "Delete")
      [] wish = "delete_by_a" -> Change(c, 1, <<0, 1, 0>>, "Delete")
      [] wish = "delete_back" -> Change(c, 1, <<1, 1, 0>>, "Delete")

-----------------------------------------------------------------------------
(* The world *)

Context(l) == [l |-> l, out |-> {}, status |-> None]
Flights(src, out) == {[src |-> src, dst |-> one.dst, msg |-> one.msg] : one \in out}
Left(m) == IF m.src = m.dst THEN network \ {m} ELSE network

RestoresLeft(g, r) == r \in MayRestore /\ g.restored[r] < Restores

(* What each step adds to the history: l and running are the ledgers and the control planes after it, said is
   what was wished in it. *)
Decision(p) == p.decided.decision
Fell(before, after) ==
    \E id \in DOMAIN before.peerings \cap DOMAIN after.peerings :
        LET was == LabelIn(before, id) is == LabelIn(after, id)
        IN  Rank(is) < Rank(was) \/ (IsTerminal(was) /\ is # was)
Changed(before, after) ==
    \E id \in DOMAIN before.peerings \cap DOMAIN after.peerings :
        LET was == Decision(before.peerings[id])
        IN  was # None /\ was # Decision(after.peerings[id])
AcceptedLate(before, after) ==
    \E id \in DOMAIN before.peerings \cap DOMAIN after.peerings :
        LET p == after.peerings[id]
        IN  /\ Decision(before.peerings[id]) = None /\ Decision(p) = "Accepted"
            /\ IF p.decided.deadline = None THEN FALSE ELSE after.clock >= p.decided.deadline
HalfFell(before, after) ==
    \E id \in before.on \ after.on :
        IF id \in DOMAIN after.peerings THEN WantsHalf(after.peerings[id]) ELSE FALSE

Ends(l, running, id) == {r \in Regions : running[r] /\ id \in DOMAIN l[r].peerings}
IsEnd(l, r, id) == IsDead(l[r].peerings[id]) /\ IsOpen(l[r], PeerOf(l[r].peerings[id], id))
IsAlive(l, r, id) == ~IsDead(l[r].peerings[id]) /\ IsOpen(l[r], PeerOf(l[r].peerings[id], id))

Observe(l, running, said) ==
    LET ids == UNION {DOMAIN l[r].peerings : r \in {one \in Regions : running[one]}}
        through == {r \in Regions : up[r] /\ running[r]}
        dead == {id \in ids : Cardinality(Ends(l, running, id)) = 2
                              /\ \A r \in Ends(l, running, id) : IsEnd(l, r, id)}
        rose == \E id \in ids \cap DOMAIN ghost.dead : \E r \in Ends(l, running, id) : IsAlive(l, r, id)
        links == {l[r].peers[other].link.name : <<r, other>> \in {<<a, b>> \in Regions \X Regions : a # b}}
        all == \A r \in Regions : running[r]
        allFrozen == ghost.allFrozen \/ (MayRestore = Regions /\ all /\ links = {"Preparing"})
        Wrong(name, is) == IF is THEN {name} ELSE {}
    IN  [said |-> ghost.said \cup said,
         restored |-> ghost.restored,
         backups |-> [r \in Regions |->
            IF EarlyBackup /\ ghost.backups[r] = None /\ l[r].peerings # Empty /\ RestoresLeft(ghost, r)
            THEN l[r] ELSE ghost.backups[r]],
         dead |-> [id \in DOMAIN ghost.dead \cup dead |-> Get(ghost.dead, id, {})],
         allFrozen |-> allFrozen,
         thawedTogether |-> ghost.thawedTogether \/ (allFrozen /\ all /\ links = {"Open"}),
         wrong |-> ghost.wrong
            \cup Wrong("rank_fell", \E r \in through : Fell(ledger[r], l[r]))
            \cup Wrong("decision_changed", \E r \in through : Changed(ledger[r], l[r]))
            \cup Wrong("accepted_late", said # {} /\ \E r \in through : AcceptedLate(ledger[r], l[r]))
            \cup Wrong("half_fell", \E r \in Regions : HalfFell(ledger[r], l[r]))
            \cup Wrong("dead_lives", rose)]

(* After a step of region r with the result c, of what was under way before. *)
Took(r, c, before, said) ==
    LET l == [ledger EXCEPT ![r] = c.l]
        running == [up EXCEPT ![r] = TRUE]
    IN  /\ ledger' = l
        /\ up' = running
        /\ network' = before \cup Flights(r, c.out \cup Calls(c.l, r))
        /\ ghost' = Observe(l, running, said)

Runs(r, c) == armed' = [armed EXCEPT ![r] = @ \/ NeedsClock(c.l)]

Answered(c, m) ==
    IF c.status = None THEN c
    ELSE Send(c, m.src, [type |-> "Reply", work |-> m.msg.work, epoch |-> m.msg.epoch, inc |-> c.l.inc,
                         status |-> c.status])

Handle(m) ==
    LET c == Context(ledger[m.dst])
    IN  CASE m.msg.type = "Call" -> Answered(OnCall(c, m.dst, m.msg), m)
          [] m.msg.type = "Reply" -> OnReply(c, m.dst, m.msg)
          [] m.msg.type = "Switched" -> OnSwitched(c, m.msg.id)

Deliver(m) ==
    /\ up[m.dst]
    /\ LET c == Handle(m) IN Took(m.dst, c, Left(m), {}) /\ Runs(m.dst, c)
    /\ UNCHANGED crashes

Fire(r) ==
    /\ up[r]
    /\ armed[r]
    /\ LET c == OnTick(Context(ledger[r]), r)
       IN  Took(r, c, network, {}) /\ armed' = [armed EXCEPT ![r] = NeedsClock(c.l)]
    /\ UNCHANGED crashes

(* What is refused may be said again. *)
Say(wish) ==
    LET r == PlaceOf(wish)
        c == IF wish = "lie" THEN Answered(OnCall(Context(ledger[1]), 1, Lie), [src |-> 0, msg |-> Lie])
             ELSE WishOf(wish, Context(ledger[r]))
    IN  /\ wish \notin ghost.said
        /\ up[r]
        /\ IF c = None THEN UNCHANGED vars
           ELSE /\ Took(r, c, network, IF wish = "lie" /\ c.l = ledger[1] THEN {} ELSE {wish})
                /\ Runs(r, c)
                /\ UNCHANGED crashes

Crash(r) ==
    /\ r \in MayCrash
    /\ crashes > 0
    /\ \A other \in Regions : up[other]
    /\ up' = [up EXCEPT ![r] = FALSE]
    /\ armed' = [armed EXCEPT ![r] = FALSE]
    /\ network' = {m \in network : ~(m.src = r /\ m.dst = r)}
    /\ crashes' = crashes - 1
    /\ ghost' = Observe(ledger, up', {})
    /\ UNCHANGED ledger

RECURSIVE AlignEach(_, _, _)
AlignEach(c, r, ids) ==
    IF ids = {} THEN c ELSE LET id == First(ids) IN AlignEach(AlignHalf(c, r, id), r, ids \ {id})

OnStart(l, r) ==
    LET c == Context([l EXCEPT !.start = @ + 1]) IN AlignEach(c, r, DOMAIN l.peerings)

Recover(r) ==
    /\ ~up[r]
    /\ LET c == OnStart(ledger[r], r)
       IN  Took(r, c, network, {}) /\ armed' = [armed EXCEPT ![r] = NeedsClock(c.l)]
    /\ UNCHANGED crashes

BackUp(r) ==
    /\ RestoresLeft(ghost, r)
    /\ ~EarlyBackup
    /\ ghost.backups[r] = None
    /\ ghost' = [ghost EXCEPT !.backups[r] = ledger[r]]
    /\ UNCHANGED <<ledger, up, armed, network, crashes>>

(* The ledger goes back; the data plane stays as it is, and what is under way too. *)
Restored(backup, life, found) == NewLife(Context([backup EXCEPT !.on = found]), life).l

Restore(r) ==
    LET backup == ghost.backups[r]
        times == ghost.restored[r] + 1
        life == Incarnation(backup.inc.n + 1, 100 * times + r)
        frozen == Restored(backup, life, ledger[r].on)
        back == IF Keeps("I-6") THEN frozen
                ELSE [frozen EXCEPT !.peers = [o \in DOMAIN @ |-> [@[o] EXCEPT !.link = Open]]]
        c == OnStart(back, r)
        wentBack == [id \in DOMAIN ghost.dead |-> ghost.dead[id] \cup {r}]
    IN  /\ RestoresLeft(ghost, r)
        /\ ghost.backups[r] # None
        /\ up[r]
        /\ ledger' = [ledger EXCEPT ![r] = c.l]
        /\ armed' = [armed EXCEPT ![r] = NeedsClock(c.l)]
        /\ network' = {m \in network : ~(m.src = r /\ m.dst = r)} \cup Flights(r, c.out \cup Calls(c.l, r))
        /\ ghost' = [ghost EXCEPT
                !.restored[r] = times,
                !.backups[r] = IF times < Restores THEN @ ELSE None,
                !.dead = Drop(wentBack, {id \in DOMAIN wentBack : Cardinality(wentBack[id]) > 1}),
                !.wrong = @ \cup (IF ledger[r].on \subseteq c.l.on THEN {} ELSE {"half_fell"})]
        /\ UNCHANGED <<up, crashes>>

FirstLedger(r) ==
    [inc |-> Incarnation(1, 0), start |-> 0, clock |-> 0, born |-> (1 :> 0), nextRecord |-> 0, nextNonce |-> 0,
     peerings |-> Empty, records |-> Empty, on |-> {},
     peers |-> [other \in Regions \ {r} |-> [floor |-> Incarnation(1, 0), link |-> Open, seen |-> Empty]]]

Init ==
    /\ ledger = [r \in Regions |-> OnStart(FirstLedger(r), r).l]
    /\ up = [r \in Regions |-> TRUE]
    /\ armed = [r \in Regions |-> FALSE]
    /\ network = {}
    /\ crashes = Crashes
    /\ ghost = [said |-> {}, backups |-> [r \in Regions |-> None], restored |-> [r \in Regions |-> 0],
                dead |-> Empty, allFrozen |-> FALSE, thawedTogether |-> FALSE, wrong |-> {}]

Next ==
    \/ \E m \in network : Deliver(m)
    \/ \E r \in Regions : Fire(r) \/ Crash(r) \/ Recover(r) \/ BackUp(r) \/ Restore(r)
    \/ \E wish \in Wishes : Say(wish)

Spec == Init /\ [][Next]_vars

(* The bound of a model: CONSTRAINT. *)
Bounded == \A r \in Regions : up[r] => ledger[r].clock <= MaxClock

-----------------------------------------------------------------------------
(* Properties, by the names that they have everywhere *)

Running == {r \in Regions : up[r]}
Ids == UNION {DOMAIN ledger[r].peerings : r \in Running}
OpenTo(r, id) == IsOpen(ledger[r], PeerOf(ledger[r].peerings[id], id))

one_decision ==
    /\ "decision_changed" \notin ghost.wrong
    /\ \A id \in Ids :
        LET known == {r \in Running : IF id \notin DOMAIN ledger[r].peerings THEN FALSE
                        ELSE OpenTo(r, id) /\ ~ledger[r].peerings[id].stuck
                             /\ Decision(ledger[r].peerings[id]) # None}
        IN  \A a, b \in known : Decision(ledger[a].peerings[id]) = Decision(ledger[b].peerings[id])

(* Two conjuncts of the proof, docs/PROOF.md: no two decisions, frozen or not; and what R knows, A knows while it
   is open. *)
BothEnds(id) == {r \in Running : id \in DOMAIN ledger[r].peerings}
agree ==
    \A id \in Ids : \A a, b \in BothEnds(id) :
        None \in {Decision(ledger[a].peerings[id]), Decision(ledger[b].peerings[id])}
        \/ Decision(ledger[a].peerings[id]) = Decision(ledger[b].peerings[id])
knows ==
    \A id \in Ids : \A a, b \in BothEnds(id) :
        ledger[a].peerings[id].side = "Accepter" /\ OpenTo(a, id) /\ Decision(ledger[b].peerings[id]) # None
            => Decision(ledger[a].peerings[id]) # None

nobody_accepted ==
    \A r \in Running : \A id \in DOMAIN ledger[r].peerings : Decision(ledger[r].peerings[id]) # "Accepted"

half_is_justified ==
    \A r \in Running : \A id \in DOMAIN ledger[r].peerings :
        OpenTo(r, id) /\ id \in ledger[r].on => WantsHalf(ledger[r].peerings[id])

rank_never_falls == "rank_fell" \notin ghost.wrong
dead_stays_dead == "dead_lives" \notin ghost.wrong
accepted_in_time == "accepted_late" \notin ghost.wrong
no_half_falls == "half_fell" \notin ghost.wrong

one_live_per_pair ==
    \A r \in Running :
        LET live == {id \in DOMAIN ledger[r].peerings : ~IsDead(ledger[r].peerings[id]) /\ OpenTo(r, id)}
        IN  \A a, b \in live : PairOf(ledger[r].peerings[a], a) = PairOf(ledger[r].peerings[b], b) => a = b

dead_is_decided ==
    \A r \in Running : \A id \in DOMAIN ledger[r].peerings :
        LET p == ledger[r].peerings[id]
        IN  p.side = "Accepter" /\ OpenTo(r, id) /\ p.requested.deleted => ~IsUndecided(p)

(* What a side makes of an operation, as far as the other side must agree. *)
Class(r, id) ==
    IF id \notin DOMAIN ledger[r].peerings THEN "dead"
    ELSE LET label == LabelIn(ledger[r], id)
         IN  IF Rank(label) <= 1 THEN "undecided" ELSE IF Rank(label) <= 3 THEN "active" ELSE "dead"
PartiesOf(id) ==
    LET one == CHOOSE r \in Running : id \in DOMAIN ledger[r].peerings
    IN  PairOf(ledger[one].peerings[id], id)
Agreed == \A id \in Ids : \A a, b \in PartiesOf(id) : Class(a, id) = Class(b, id)
AtRest ==
    /\ Running = Regions
    /\ \A m \in network : m.src # m.dst
    /\ \A r \in Regions : Work(ledger[r]) = {} /\ \A other \in DOMAIN ledger[r].peers : IsOpen(ledger[r], other)

rest_is_agreement == AtRest => Agreed

(* What must be possible: each is an invariant that must be violated. *)
Shows(label) == \E r \in Running : \E id \in DOMAIN ledger[r].peerings : LabelIn(ledger[r], id) = label
never_both_active == Cardinality({r \in Running : ledger[r].on # {}}) < 2
never_deleted == ~Shows("Deleted")
never_rejected == ~Shows("Rejected")
never_expired_request == ~Shows("Expired")
never_failed == ~Shows("Failed")
never_forgotten ==
    \A r \in Running : \A id \in {<<r, 1, seq>> : seq \in 0..9} : ~HasClosed(ledger[r], id)
never_accepted_again ==
    \A r \in Running : \A id \in DOMAIN ledger[r].peerings :
        ~(id[3] = 1 /\ Decision(ledger[r].peerings[id]) = "Accepted")
never_thawed ==
    \A r \in Running : ghost.restored[r] = 0 \/ \E other \in DOMAIN ledger[r].peers : ~IsOpen(ledger[r], other)
never_thawed_together == ~ghost.thawedTogether
never_deleted_twice == ~({"reject", "delete_by_a"} \subseteq ghost.said)
=============================================================================
