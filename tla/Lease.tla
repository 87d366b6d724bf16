------------------------------- MODULE Lease -------------------------------
(* The lease: elector and store, as src/lease/elector.rs and src/lease/store.rs have them, in a network and
   a time as models/world.rs has them. One operator here is one function there, by the same name; README.md
   has the table. A handler takes and gives a context c: the elector's state c.e, its armed timers c.t, and
   what it sends, c.out.

   Time is counted in whole ticks. An armed timer is a window: it may fire once `lo` ticks have passed and
   must before more than `hi` have. Nothing holds a date. *)
EXTENDS Integers, FiniteSets

CONSTANTS
    Hosts,          \* 0..n-1, as in Rust; the store is node n
    Lease, GiveUp, Renew, Retry, Poll, Jitter, Hook,    \* L, G, R, the retry, P, the jitter, S: in ticks
    ErrorPpm,       \* rho: the bound on the error of a clock's rate, in parts per million
    Timed,          \* whether time passes; if not, any armed timer may fire at any moment
    Repeats,        \* whether a message may be delivered any number of times
    Delay,          \* within how many ticks a message arrives; Never if there is no such bound
    MayCrash, Crashes, MayRecover,  \* which nodes, how often in all, and whether they start again
    StepDowns, HandOvers,           \* whether an operator may say so
    Inputs,         \* how often
    Fires,          \* how often a timer may fire at all; Never if there is no such bound
    MaxRequests,    \* the bound of a model: how many requests a life may send
    Without,        \* the rules that are left out: {} for the protocol as it is
    None, Anybody   \* model values

Never == 65535
Store == Cardinality(Hosts)
Nodes == Hosts \cup {Store}
Timers == {"Poll", "Watch", "HoldA", "HoldB", "Attempt", "Yield"}

Keeps(rule) == rule \notin Without

VARIABLES
    elector,    \* of each host its elector's state; None while it is down
    life,       \* of each host the number of its last life, as on its disk
    timers,     \* of each host a window for each armed timer, and None for the others
    record,     \* the store's record, on its disk
    storeUp,
    network,    \* the messages under way
    budget,     \* what may still go wrong
    ghost       \* what was granted, and whether something has gone wrong

vars == <<elector, life, timers, record, storeUp, network, budget, ghost>>

-----------------------------------------------------------------------------
(* Values *)

NoNonce == <<0, 0, 0>>
Absent == [version |-> 0, nonce |-> NoNonce, holder |-> None, epoch |-> 1, inSync |-> {}]
Free(r) == r.holder = None
AnyVersion == -1

Million == 1000000
Earliest(d) == (d * Million) \div (Million + ErrorPpm)
Latest(d) == (d * Million + (Million - ErrorPpm) - 1) \div (Million - ErrorPpm)
Window(lo, hi) == IF Timed THEN [lo |-> Earliest(lo), hi |-> Latest(hi)] ELSE [lo |-> 0, hi |-> 0]
Minus(a, b) == IF a > b THEN a - b ELSE 0

Other(slot) == IF slot = "A" THEN "B" ELSE "A"
Hold(slot) == IF slot = "A" THEN "HoldA" ELSE "HoldB"

Watching(yielding, ripe) == [name |-> "Watching", yielding |-> yielding, ripe |-> ripe]
Acquiring == [name |-> "Acquiring"]
Holding(epoch, slot) == [name |-> "Holding", epoch |-> epoch, slot |-> slot]
Stopping(epoch, then) == [name |-> "Stopping", epoch |-> epoch, then |-> then]
Releasing(epoch, nonce, sent) ==
    [name |-> "Releasing", epoch |-> epoch, nonce |-> nonce, sent |-> sent]
Retired == [name |-> "Retired"]

ThenWatch == [kind |-> "Watch", target |-> None]
ThenRelease == [kind |-> "Release", target |-> None]
ThenHandOver(target) == [kind |-> "HandOver", target |-> target]

-----------------------------------------------------------------------------
(* What a step may do: arm and disarm timers, and send *)

Exactly(d) == Window(d, d)
Loosely(d) == Window(Minus(d, Jitter), d)
SetTimer(c, timer, window) == [c EXCEPT !.t[timer] = window]
Cancel(c, some) == [c EXCEPT !.t = [t \in Timers |-> IF t \in some THEN None ELSE @[t]]]
Send(c, dst, msg) == [c EXCEPT !.out = @ \cup {[dst |-> dst, msg |-> msg]}]
Become(c, phase) == [c EXCEPT !.e.phase = phase]

Me(c, h) == <<h, c.e.incarnation>>
IsMine(c, h, r) ==
    /\ r.holder # None
    /\ \/ r.holder = Me(c, h)
       \/ r.holder[1] = h /\ ~Keeps("L-29")
Admits(h, r) == r.version = 0 \/ h \in r.inSync
Learn(c, r) == [c EXCEPT !.e.seen = r, !.e.exposed = r.inSync]
NextNonce(c, h) == <<h, c.e.incarnation, c.e.requests + 1>>
Count(c) == [c EXCEPT !.e.requests = @ + 1]
KeepsName(sent, period) == Keeps("L-42") /\ period * sent < GiveUp
Over(r, rule) == IF Keeps(rule) THEN r.version ELSE AnyVersion

EpochOver(c, h, r) ==
    IF Free(r) \/ (IsMine(c, h, r) /\ ~Keeps("L-29")) \/ ~Keeps("L-25")
    THEN r.epoch ELSE r.epoch + 1

-----------------------------------------------------------------------------
(* Watching *)

Read(c, h) ==
    LET again == c.e.reading # None /\ KeepsName(c.e.reading.sent, Poll)
        reading == IF again THEN [c.e.reading EXCEPT !.sent = @ + 1]
                   ELSE [nonce |-> NextNonce(c, h), sent |-> 1]
        counted == IF again THEN c ELSE Count(c)
        sent == Send(counted, Store, [type |-> "Read", nonce |-> reading.nonce])
    IN  SetTimer([sent EXCEPT !.e.reading = reading], "Poll", Loosely(Poll))

BackToWatching(c, h, yielding) ==
    IF ~Keeps("L-38") THEN Become(c, Retired)
    ELSE LET quiet == Cancel(c, IF yielding = None THEN {"Attempt", "Yield"} ELSE {"Attempt"})
             blank == IF yielding = None THEN [quiet EXCEPT !.e.seen = None] ELSE quiet
         IN  Read(Become(blank, Watching(yielding, FALSE)), h)

-----------------------------------------------------------------------------
(* Acquiring and holding *)

SendAttempt(c, h) ==
    LET base == c.e.seen
        holds == c.e.phase.name = "Holding"
        claim == [holder |-> Me(c, h),
                  epoch |-> IF holds THEN c.e.phase.epoch ELSE EpochOver(c, h, base),
                  inSync |-> c.e.attempt.inSync]
        msg == [type |-> "Write", nonce |-> c.e.attempt.nonce,
                expect |-> Over(base, IF holds THEN "L-15" ELSE "L-17"), claim |-> claim]
    IN  SetTimer(Send(c, Store, msg), "Attempt", Loosely(Retry))

Attempt(c, h) ==
    LET holds == c.e.phase.name = "Holding"
        inSync == IF c.e.seen.version = 0 THEN Hosts ELSE c.e.seen.inSync
        slot == IF holds THEN Other(c.e.phase.slot) ELSE "A"
        attempt == [nonce |-> NextNonce(c, h), slot |-> slot, inSync |-> inSync, sent |-> 1]
        made == [Count(c) EXCEPT !.e.attempt = attempt, !.e.exposed = @ \cup inSync]
        armed == IF Keeps("L-1") THEN SetTimer(made, Hold(slot), Exactly(GiveUp)) ELSE made
        extended == IF ~Keeps("L-13") /\ holds
                    THEN SetTimer(armed, Hold(c.e.phase.slot), Exactly(GiveUp)) ELSE armed
    IN  SendAttempt(extended, h)

AttemptAgain(c, h) ==
    LET again == [c EXCEPT !.e.attempt.sent = @ + 1]
        armed == IF Keeps("L-18") THEN again
                 ELSE SetTimer(again, Hold(c.e.attempt.slot), Exactly(GiveUp))
    IN  SendAttempt(armed, h)

Take(c, h) ==
    LET quiet == Cancel(c, {"Poll", "Watch", "Yield"})
    IN  Attempt([quiet EXCEPT !.e.reading = None, !.e.phase = Acquiring], h)

-----------------------------------------------------------------------------
(* The end of a term *)

SendTombstone(c, epoch, nonce) ==
    LET next == IF ~Keeps("L-27") THEN Absent.epoch
                ELSE IF Keeps("L-26") THEN epoch + 1 ELSE epoch
        claim == [holder |-> None, epoch |-> next, inSync |-> c.e.seen.inSync]
    IN  Send(c, Store, [type |-> "Write", nonce |-> nonce,
                        expect |-> Over(c.e.seen, "L-16"), claim |-> claim])

ReleaseOver(c, h, epoch) ==
    LET nonce == NextNonce(c, h)
        sent == SendTombstone(Count(c), epoch, nonce)
    IN  SetTimer(Become(sent, Releasing(epoch, nonce, 1)), "Attempt", Loosely(Retry))

Release(c, h, epoch) ==
    IF c.e.phase.name = "Releasing" /\ KeepsName(c.e.phase.sent, Retry)
    THEN LET sent == SendTombstone(c, epoch, c.e.phase.nonce)
         IN  SetTimer([sent EXCEPT !.e.phase.sent = @ + 1], "Attempt", Loosely(Retry))
    ELSE ReleaseOver(c, h, epoch)

Stop(c, h, then) ==
    LET epoch == c.e.phase.epoch
        slot == c.e.phase.slot
        quiet == Cancel(c, {"Attempt", Hold(slot)})
        forgot == IF Keeps("L-33")
                  THEN [Cancel(quiet, {Hold(Other(slot))}) EXCEPT !.e.attempt = None] ELSE quiet
        stops == Send(Become(forgot, Stopping(epoch, then)), h, [type |-> "Stopped", epoch |-> epoch])
    IN  IF then.kind = "Release" /\ ~Keeps("L-31")
        THEN SendTombstone(Count(stops), epoch, NextNonce(stops, h)) ELSE stops

OnStopped(c, h, epoch) ==
    IF c.e.phase.name # "Stopping" THEN c
    ELSE IF c.e.phase.epoch # epoch THEN c
    ELSE LET then == c.e.phase.then
             yields == SetTimer(c, "Yield", Exactly(Lease))
         IN  CASE then.kind = "Watch" -> BackToWatching(c, h, None)
               [] then.kind = "Release" -> Release(yields, h, epoch)
               [] then.kind = "HandOver" ->
                    BackToWatching(
                        Send(yields, then.target, [type |-> "Consent", record |-> c.e.seen]),
                        h, then.target)

OnStepDown(c, h) ==
    IF Keeps("L-32") THEN Stop(c, h, ThenRelease)
    ELSE LET nonce == NextNonce(c, h)
             sent == SendTombstone(Count(c), c.e.phase.epoch, nonce)
         IN  [sent EXCEPT !.e.attempt = [nonce |-> nonce, slot |-> Other(c.e.phase.slot),
                                         inSync |-> c.e.exposed, sent |-> 1]]

OnHandOver(c, h, target) ==
    IF target \in c.e.seen.inSync THEN Stop(c, h, ThenHandOver(target)) ELSE c

-----------------------------------------------------------------------------
(* Answers *)

WatchFrom(c) ==
    SetTimer(c, "Watch", IF Keeps("L-6") THEN Exactly(Lease) ELSE Window(0, Lease))

Look(c, h, r) ==
    LET phase == c.e.phase
        first == c.e.seen = None
        changed == IF first THEN TRUE ELSE c.e.seen.version # r.version
        learnt == Learn(c, r)
        looks == IF phase.yielding = None THEN learnt
                 ELSE Become(Cancel(learnt, {"Yield"}), Watching(None, FALSE))
    IN  IF phase.yielding # None /\ (Free(r) \/ IsMine(c, h, r))
        THEN IF phase.yielding # Anybody /\ ~Free(r)
             THEN Send(learnt, phase.yielding, [type |-> "Consent", record |-> r])
             ELSE learnt
        ELSE IF ~Admits(h, r) THEN Cancel(looks, {"Watch"})
        ELSE IF Free(r) \/ IsMine(c, h, r) \/ phase.ripe THEN Take(looks, h)
        ELSE IF changed /\ (first \/ Keeps("L-9")) THEN WatchFrom(looks)
        ELSE looks

OnReadOk(c, h, nonce, r) ==
    IF c.e.reading = None THEN c
    ELSE IF c.e.reading.nonce # nonce THEN c
    ELSE Look([c EXCEPT !.e.reading = None], h, r)

Grant(c, h, attempt, r) ==
    LET known == [Learn(c, r) EXCEPT !.e.attempt = None]
        swapped == IF c.e.phase.name = "Holding" THEN Cancel(known, {Hold(c.e.phase.slot)}) ELSE known
        armed == IF Keeps("L-1") THEN swapped
                 ELSE SetTimer(swapped, Hold(attempt.slot), Exactly(GiveUp))
        clean == IF Keeps("L-33") THEN armed
                 ELSE [Cancel(armed, {"Poll", "Watch", "Yield"}) EXCEPT !.e.reading = None]
    IN  IF r.holder # Me(c, h) THEN Stop(known, h, ThenWatch)
        ELSE SetTimer(Become(clean, Holding(r.epoch, attempt.slot)), "Attempt", Loosely(Renew))

IsAttempt(c, nonce) == IF c.e.attempt = None THEN FALSE ELSE c.e.attempt.nonce = nonce
IsRelease(c, nonce) == IF c.e.phase.name # "Releasing" THEN FALSE ELSE c.e.phase.nonce = nonce

OnWritten(c, h, nonce, r) ==
    IF IsAttempt(c, nonce) THEN Grant(c, h, c.e.attempt, r)
    ELSE IF IsRelease(c, nonce) THEN BackToWatching(Learn(c, r), h, Anybody)
    ELSE c

OnClaimRefused(c, h, attempt, r) ==
    LET known == Cancel([Learn(c, r) EXCEPT !.e.attempt = None], {Hold(attempt.slot)})
        holds == c.e.phase.name = "Holding"
        sameTerm == IsMine(c, h, r) /\ (IF holds THEN c.e.phase.epoch = r.epoch ELSE TRUE)
    IN  IF r.nonce = attempt.nonce THEN Grant(c, h, attempt, r)
        ELSE IF c.e.phase.name \notin {"Acquiring", "Holding"} THEN known
        ELSE IF sameTerm THEN Attempt(known, h)
        ELSE IF holds THEN IF Keeps("L-20a") THEN Stop(known, h, ThenWatch) ELSE known
        ELSE BackToWatching(known, h, None)

OnConflict(c, h, nonce, r) ==
    IF IsAttempt(c, nonce) THEN OnClaimRefused(c, h, c.e.attempt, r)
    ELSE IF IsRelease(c, nonce)
    THEN IF IsMine(c, h, r) /\ r.epoch = c.e.phase.epoch
         THEN ReleaseOver(Learn(c, r), h, c.e.phase.epoch)
         ELSE BackToWatching(Learn(c, r), h, IF Free(r) THEN Anybody ELSE None)
    ELSE c

OnConsent(c, h, src, r) ==
    LET seen == IF c.e.seen = None THEN 0 ELSE c.e.seen.version
        useful == CASE c.e.phase.name = "Watching" -> r.version >= seen
                    [] c.e.phase.name = "Acquiring" -> r.version > seen
                    [] OTHER -> FALSE
        holders == IF r.holder = None THEN FALSE ELSE r.holder[1] = src
    IN  IF useful /\ holders /\ Admits(h, r)
        THEN Take(Learn([c EXCEPT !.e.attempt = None], r), h) ELSE c

OnMsg(c, h, src, msg) ==
    CASE msg.type = "ReadOk" -> OnReadOk(c, h, msg.nonce, msg.record)
      [] msg.type = "Written" -> OnWritten(c, h, msg.nonce, msg.record)
      [] msg.type = "Conflict" -> OnConflict(c, h, msg.nonce, msg.record)
      [] msg.type = "Consent" -> OnConsent(c, h, src, msg.record)
      [] msg.type = "Stopped" -> OnStopped(c, h, msg.epoch)

-----------------------------------------------------------------------------
(* Timers *)

OnWatched(c, h) ==
    IF c.e.phase.name # "Watching" THEN c
    ELSE IF c.e.phase.yielding # None THEN c
    ELSE IF Keeps("L-23") THEN Take(c, h)
    ELSE Read(Become(c, Watching(None, TRUE)), h)

OnHoldOver(c, h, slot) ==
    LET holds == IF c.e.phase.name = "Holding" THEN c.e.phase.slot = slot ELSE FALSE
        pending == IF c.e.attempt = None THEN FALSE ELSE c.e.attempt.slot = slot
        forgot == [c EXCEPT !.e.attempt = None]
    IN  IF holds
        THEN IF c.e.attempt # None /\ ~Keeps("L-11") THEN c ELSE Stop(c, h, ThenWatch)
        ELSE IF ~pending THEN c
        ELSE IF c.e.phase = Acquiring THEN BackToWatching(Cancel(forgot, {"Attempt"}), h, None)
        ELSE forgot

OnAttemptDue(c, h) ==
    CASE c.e.phase.name \in {"Acquiring", "Holding"} ->
            IF c.e.attempt = None THEN Attempt(c, h)
            ELSE IF KeepsName(c.e.attempt.sent, Retry) THEN AttemptAgain(c, h)
            ELSE Attempt(c, h)
      [] c.e.phase.name = "Releasing" -> Release(c, h, c.e.phase.epoch)
      [] OTHER -> c

OnTimeout(c, h, timer) ==
    CASE timer = "Poll" -> IF c.e.phase.name = "Watching" THEN Read(c, h) ELSE c
      [] timer = "Watch" -> OnWatched(c, h)
      [] timer = "HoldA" -> OnHoldOver(c, h, "A")
      [] timer = "HoldB" -> OnHoldOver(c, h, "B")
      [] timer = "Attempt" -> OnAttemptDue(c, h)
      [] timer = "Yield" -> IF c.e.phase.name \in {"Watching", "Releasing"}
                            THEN BackToWatching(c, h, None) ELSE c

OnStart(h, incarnation) ==
    Read([e |-> [incarnation |-> incarnation, requests |-> 0, seen |-> None, reading |-> None,
                 attempt |-> None, exposed |-> {}, phase |-> Watching(None, FALSE)],
          t |-> [t \in Timers |-> None], out |-> {}], h)

-----------------------------------------------------------------------------
(* The world *)

Arrival(src, dst) == IF ~Timed THEN Never ELSE IF src = dst THEN Hook ELSE Delay
Flights(src, out) ==
    {[src |-> src, dst |-> o.dst, msg |-> o.msg, latest |-> Arrival(src, o.dst)] : o \in out}

Spend(what) == [budget EXCEPT ![what] = IF @ = Never THEN Never ELSE @ - 1]

(* After a step of host h with the result c, of what was under way before. *)
Took(h, c, before) ==
    /\ elector' = [elector EXCEPT ![h] = c.e]
    /\ timers' = [timers EXCEPT ![h] = c.t]
    /\ network' = before \cup Flights(h, c.out)

Context(h) == [e |-> elector[h], t |-> timers[h], out |-> {}]

(* The record that can be seen: a store that is down and has never written shows none. *)
Shown(r, up) == IF up \/ r.version > 0 THEN r.version ELSE -1

Observe(r, up) ==
    IF Shown(r, up) = Shown(record, storeUp) \/ Shown(r, up) = -1 THEN ghost
    ELSE [epoch |-> r.epoch,
          holder |-> IF r.holder # None THEN r.holder
                     ELSE IF r.epoch # ghost.epoch THEN None ELSE ghost.holder,
          wentBack |-> ghost.wentBack \/ r.epoch < ghost.epoch,
          grantedTwice |-> ghost.grantedTwice
                \/ (r.holder # None /\ ghost.holder # None /\ r.epoch = ghost.epoch
                    /\ ghost.holder # r.holder)]

Left(m) == IF Repeats /\ m.src # m.dst THEN network ELSE network \ {m}

DeliverToHost(m) ==
    /\ m.dst \in Hosts
    /\ elector[m.dst] # None
    /\ Took(m.dst, OnMsg(Context(m.dst), m.dst, m.src, m.msg), Left(m))
    /\ UNCHANGED <<life, record, storeUp, budget, ghost>>

(* LeaseStore::on_msg *)
DeliverToStore(m) ==
    LET msg == m.msg
        fits == msg.expect \in {record.version, AnyVersion} \/ ~Keeps("L-22")
        written == [version |-> record.version + 1, nonce |-> msg.nonce,
                    holder |-> msg.claim.holder, epoch |-> msg.claim.epoch,
                    inSync |-> msg.claim.inSync]
        Answer(type, r) == network' = Left(m) \cup Flights(Store,
            {[dst |-> m.src, msg |-> [type |-> type, nonce |-> msg.nonce, record |-> r]]})
    IN  /\ m.dst = Store
        /\ storeUp
        /\ IF msg.type = "Read"
           THEN Answer("ReadOk", record) /\ UNCHANGED <<record, ghost>>
           ELSE IF fits
           THEN /\ Answer("Written", written)
                /\ record' = written
                /\ ghost' = Observe(written, TRUE)
           ELSE Answer("Conflict", record) /\ UNCHANGED <<record, ghost>>
        /\ UNCHANGED <<elector, life, timers, storeUp, budget>>

Deliver(m) == DeliverToHost(m) \/ DeliverToStore(m)

Fire(h, timer) ==
    /\ elector[h] # None
    /\ timers[h][timer] # None
    /\ timers[h][timer].lo = 0
    /\ budget.fires # 0
    /\ Took(h, OnTimeout(Cancel(Context(h), {timer}), h, timer), network)
    /\ budget' = Spend("fires")
    /\ UNCHANGED <<life, record, storeUp, ghost>>

IsUp(n) == IF n = Store THEN storeUp ELSE elector[n] # None

(* A tick passes, if nothing is due. *)
Elapse ==
    /\ Timed
    /\ \A h \in Hosts, t \in Timers : timers[h][t] # None => timers[h][t].hi > 0
    /\ \A m \in network : m.latest = 0 => ~IsUp(m.dst)
    /\ timers' = [h \in Hosts |-> [t \in Timers |->
            IF timers[h][t] = None THEN None
            ELSE [lo |-> Minus(timers[h][t].lo, 1), hi |-> timers[h][t].hi - 1]]]
    /\ network' = {[m EXCEPT !.latest = IF @ = Never THEN Never ELSE Minus(@, 1)] :
                        m \in {f \in network : ~(f.latest = 0 /\ ~IsUp(f.dst))}}
    /\ UNCHANGED <<elector, life, record, storeUp, budget, ghost>>

Crash(n) ==
    /\ n \in MayCrash
    /\ budget.crashes # 0
    /\ \A other \in Nodes : IsUp(other)
    /\ IF n = Store
       THEN storeUp' = FALSE /\ UNCHANGED <<elector, timers, network>>
       ELSE /\ elector' = [elector EXCEPT ![n] = None]
            /\ timers' = [timers EXCEPT ![n] = [t \in Timers |-> None]]
            /\ network' = {m \in network : ~(m.src = n /\ m.dst = n)}
            /\ UNCHANGED storeUp
    /\ budget' = Spend("crashes")
    /\ UNCHANGED <<life, record, ghost>>

Recover(n) ==
    /\ MayRecover
    /\ ~IsUp(n)
    /\ IF n = Store
       THEN /\ storeUp' = TRUE
            /\ ghost' = Observe(record, TRUE)
            /\ UNCHANGED <<elector, timers, network, life>>
       ELSE /\ life' = [life EXCEPT ![n] = @ + 1]
            /\ Took(n, OnStart(n, life[n] + 1), network)
            /\ UNCHANGED <<storeUp, ghost>>
    /\ UNCHANGED <<record, budget>>

IsHolding(h) == IF elector[h] = None THEN FALSE ELSE elector[h].phase.name = "Holding"

Say(h, c) ==
    /\ IsHolding(h)
    /\ budget.inputs # 0
    /\ Took(h, c, network)
    /\ budget' = Spend("inputs")
    /\ UNCHANGED <<life, record, storeUp, ghost>>

StepDown(h) == StepDowns /\ IsHolding(h) /\ Say(h, OnStepDown(Context(h), h))
HandOver(h, target) ==
    HandOvers /\ IsHolding(h) /\ target # h /\ Say(h, OnHandOver(Context(h), h, target))

Init ==
    LET begun == [h \in Hosts |-> OnStart(h, 1)]
    IN  /\ elector = [h \in Hosts |-> begun[h].e]
        /\ timers = [h \in Hosts |-> begun[h].t]
        /\ network = UNION {Flights(h, begun[h].out) : h \in Hosts}
        /\ life = [h \in Hosts |-> 1]
        /\ record = Absent
        /\ storeUp = TRUE
        /\ budget = [crashes |-> Crashes, inputs |-> Inputs, fires |-> Fires]
        /\ ghost = [epoch |-> 0, holder |-> None, wentBack |-> FALSE, grantedTwice |-> FALSE]

Next ==
    \/ \E m \in network : Deliver(m)
    \/ \E h \in Hosts, t \in Timers : Fire(h, t)
    \/ Elapse
    \/ \E n \in Nodes : Crash(n) \/ Recover(n)
    \/ \E h \in Hosts : StepDown(h) \/ (\E target \in Hosts : HandOver(h, target))

Spec == Init /\ [][Next]_vars

(* The bound of a model: CONSTRAINT. *)
Bounded == \A h \in Hosts : elector[h] # None => elector[h].requests <= MaxRequests

-----------------------------------------------------------------------------
(* Properties, by the names that they have everywhere *)

Writable(h) == IF elector[h] = None THEN FALSE
               ELSE elector[h].phase.name \in {"Holding", "Stopping"}

single_writer == \A a, b \in Hosts : Writable(a) /\ Writable(b) => a = b

unique_holder_per_epoch == ~ghost.wentBack /\ ~ghost.grantedTwice

read_only_under_another ==
    \A h \in Hosts : IsHolding(h) =>
        /\ elector[h].seen # None
        /\ elector[h].seen.holder = <<h, elector[h].incarnation>>
        /\ elector[h].seen.epoch = elector[h].phase.epoch

holder_has_deadline ==
    \A h \in Hosts : IsHolding(h) => timers[h][Hold(elector[h].phase.slot)] # None

(* What must be possible: each is an invariant that must be violated. *)
never_elected == \A h \in Hosts : ~IsHolding(h)
never_renewed == ~\E h \in Hosts : IsHolding(h) /\ IsAttempt(Context(h), record.nonce)
never_taken_over == ~\E h \in Hosts : IsHolding(h) /\ elector[h].phase.epoch > 1
never_expired == ~\E h \in Hosts :
    IF elector[h] = None THEN FALSE
    ELSE IF elector[h].phase.name # "Stopping" THEN FALSE
    ELSE elector[h].phase.then = ThenWatch
=============================================================================
