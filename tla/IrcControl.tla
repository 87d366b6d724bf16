----------------------------- MODULE IrcControl -----------------------------
(* Peerings between regions: the control plane, as src/irc/control.rs, calls.rs, remote.rs, log.rs and restore.rs
   have it. One operator here is one function there, by the same name; README.md has the table. A
   handler takes and gives a context c: the region's ledger c.l, what it sends, c.out, and what it
   answers, c.status. *)
EXTENDS IrcFacts

CONSTANTS
    Pending,        \* after how many ticks a request expires
    Remember        \* after how many ticks something that is over is forgotten

-----------------------------------------------------------------------------
(* Writing *)

Send(c, dst, msg) == [c EXCEPT !.out = @ \cup {[dst |-> dst, msg |-> msg]}]
Write(c, id, p) == [c EXCEPT !.l.peerings = Put(@, id, p)]
Switch(c, id, on) == [c EXCEPT !.l.on = IF on THEN @ \cup {id} ELSE @ \ {id}]
SetPeer(c, region, peer) == [c EXCEPT !.l.peers[region] = peer]
IsOpen(l, region) == l.peers[region].link.name = "Open"
LabelIn(l, id) == Label(l.peerings[id], id \in l.on)

NoteTerminal(c, id) ==
    LET p == c.l.peerings[id]
        label == LabelIn(c.l, id)
    IN  IF IsTerminal(label) /\ p.terminal = None THEN Write(c, id, [p EXCEPT !.terminal = label]) ELSE c

AlignHalf(c, r, id) ==
    LET p == c.l.peerings[id]
        isOn == id \in c.l.on
        waits == ~Keeps("I-33") /\ ~p.confirmed
    IN  IF c.l.peers[PeerOf(p, id)].link.name \in {"Preparing", "Syncing"}
        THEN IF Keeps("I-36") THEN c ELSE Switch(c, id, FALSE)
        ELSE IF isOn /\ ~WantsHalf(p) /\ ~waits THEN NoteTerminal(Switch(c, id, FALSE), id)
        ELSE IF ~isOn /\ WantsHalf(p) /\ ~p.stuck THEN Send(c, r, [type |-> "Switched", id |-> id])
        ELSE c

PutPeering(c, r, id, p) ==
    LET dated == IF IsDead(p) /\ p.deadSince = None THEN [p EXCEPT !.deadSince = c.l.clock] ELSE p
    IN  NoteTerminal(AlignHalf(Write(c, id, dated), r, id), id)

(* Where a flag is raised, the own half goes off in that very step. *)
HalfOff(c, id) == IF Keeps("I-33") THEN Switch(c, id, FALSE) ELSE c

RecordsOf(l, id) == {record \in DOMAIN l.records : l.records[record].id = id}
DropRecords(c, gone) == [c EXCEPT !.l.records = Drop(@, gone)]

Log(c, r, id, verb) ==
    LET p == c.l.peerings[id]
        numbered == Write(c, id, [p EXCEPT !.nextOp = @ + 1])
        alone == IF verb = "Delete" THEN DropRecords(numbered, RecordsOf(c.l, id)) ELSE numbered
        record == [remote |-> PeerOf(p, id), id |-> id, verb |-> verb, op |-> p.nextOp]
    IN  [alone EXCEPT !.l.records = Put(@, <<c.l.inc.n, c.l.nextRecord>>, record), !.l.nextRecord = @ + 1]

HasClosed(l, id) == id[3] < Get(l.born, id[2], 0) /\ id \notin DOMAIN l.peerings

ClosedBelow(l, region, n) ==
    LET IsUnstored(id) == LET p == l.peerings[id] IN
            id[2] = n /\ p.side = "Requester" /\ p.requested.to = region
            /\ p.decided.deadline = None /\ ~p.confirmed
    IN  LeastOf({Get(l.born, n, 0)} \cup {id[3] : id \in {one \in DOMAIN l.peerings : IsUnstored(one)}})

-----------------------------------------------------------------------------
(* What a region has to say *)

With(l, region) == {id \in DOMAIN l.peerings : PeerOf(l.peerings[id], id) = region}
DigestOf(l, id) == [id |-> id, requested |-> l.peerings[id].requested, decided |-> l.peerings[id].decided]

IsOldest(l, record) == \A other \in RecordsOf(l, l.records[record].id) : ~Before(other, record)

Work(l) ==
    {<<"Prepare", region>> : region \in {one \in DOMAIN l.peers : l.peers[one].link.name = "Preparing"}}
    \cup {<<"Sync", region>> : region \in {one \in DOMAIN l.peers : l.peers[one].link.name = "Syncing"}}
    \cup {<<"Record", record[1], record[2]>> :
            record \in {one \in DOMAIN l.records : IsOldest(l, one) /\ IsOpen(l, l.records[one].remote)}}

RecordIn(work) == <<work[2], work[3]>>
RemoteOf(l, work) == IF work[1] = "Record" THEN l.records[RecordIn(work)].remote ELSE work[2]

Errand(l, r, work) ==
    CASE work[1] = "Prepare" -> [type |-> "Prepare", nonce |-> l.peers[work[2]].link.nonce]
      [] work[1] = "Sync" -> [type |-> "Sync", nonce |-> l.peers[work[2]].link.nonce,
                              digests |-> {DigestOf(l, id) : id \in With(l, work[2])}]
      [] work[1] = "Record" ->
            LET record == l.records[RecordIn(work)] IN
            [type |-> "Apply", id |-> record.id, op |-> record.op,
             closedBelow |-> IF record.id[1] = r THEN ClosedBelow(l, record.remote, record.id[2]) ELSE 0,
             body |-> OwnBundle(l.peerings[record.id])]

Calls(l, r) ==
    {[dst |-> RemoteOf(l, work),
      msg |-> [type |-> "Call", from |-> r, inc |-> l.inc, work |-> work, epoch |-> l.inc.n,
               errand |-> Errand(l, r, work)]] : work \in Work(l)}

-----------------------------------------------------------------------------
(* A new life *)

(* The tag of a life that a region begins by itself: in Rust a hash of these. *)
Begun(r, n, nonce) == 10000 + 1000 * r + 100 * n + nonce

Freeze(c, region) ==
    [c EXCEPT !.l.peers[region].link = Preparing(c.l.nextNonce), !.l.nextNonce = @ + 1]

RECURSIVE FreezeEach(_, _)
FreezeEach(c, regions) ==
    IF regions = {} THEN c
    ELSE LET region == LeastOf(regions) IN FreezeEach(Freeze(c, region), regions \ {region})

NewLife(c, life) ==
    LET begun == [c EXCEPT !.l.inc = life, !.l.born = Put(@, life.n, 0), !.l.nextRecord = 0]
    IN  FreezeEach(begun, DOMAIN c.l.peers)

BeginLife(c, r, n) == NewLife(c, Incarnation(n, Begun(r, n, c.l.nextNonce)))

Outlived(c, r, floor) ==
    LET me == c.l.inc
    IN  IF floor.n > me.n \/ (floor.n = me.n /\ floor # me) THEN BeginLife(c, r, floor.n + 1) ELSE c

-----------------------------------------------------------------------------
(* Facts that arrive *)

Learn(l, id, p, bundle) ==
    LET theirs == bundle.facts
        joined ==
            IF bundle.of = "Requester"
            THEN [p EXCEPT !.requested = JoinRequested(@, theirs), !.confirmed = @ \/ theirs.deleted]
            ELSE LET told == [p EXCEPT !.confirmed = @ \/ IsDeadByA(theirs)]
                 IN  IF IsConflict(p.decided, theirs) /\ Keeps("I-2") THEN [told EXCEPT !.stuck = TRUE]
                     ELSE [told EXCEPT !.decided = JoinDecided(@, theirs)]
    IN  IF joined.side = "Accepter" /\ joined.requested.deleted /\ IsUndecided(joined)
            /\ IsOpen(l, PeerOf(joined, id))
        THEN Decide(joined, "Cancelled") ELSE joined

(* Whether a request may have its pair; the loser of two that cross ends its own. *)
Rivals(l, id, p) ==
    {other \in DOMAIN l.peerings :
        PairOf(l.peerings[other], other) = PairOf(p, id) /\ ~IsDead(l.peerings[other])}
LosesTo(l, id, rival) ==
    l.peerings[rival].side = "Requester" /\ IsUndecided(l.peerings[rival]) /\ Before(id, rival)

Answer(c, status) == [c EXCEPT !.status = status]
Says(type) == [type |-> type]
Told(type, body) == [type |-> type, body |-> body]

OnNew(c, r, from, id, version, requested) ==
    LET peer == c.l.peers[from]
        mark == See(Get(peer.seen, id[2], Unseen), id[3])
        marked == IF Keeps("I-5") THEN SetPeer(c, from, [peer EXCEPT !.seen = Put(@, id[2], mark)]) ELSE c
        stored == [NewPeering("Accepter", requested) EXCEPT !.seen = version,
                        !.decided.deadline = c.l.clock + Pending, !.decided.seal = "Own"]
        rivals == Rivals(c.l, id, stored)
        rival == First(rivals)
        crosses == rivals # {} /\ Keeps("I-13") /\ ~requested.deleted
        yields == crosses /\ LosesTo(c.l, id, rival)
        beaten == IF yields
                  THEN Log(PutPeering(HalfOff(marked, rival), r, rival, Flagged(c.l.peerings[rival])),
                           r, rival, "Delete")
                  ELSE marked
        p == IF requested.deleted THEN [Decide(stored, "Cancelled") EXCEPT !.confirmed = TRUE]
             ELSE IF crosses /\ ~yields THEN Decide(stored, "Failed") ELSE stored
        put == PutPeering(beaten, r, id, p)
        logged == IF ~IsUndecided(p) /\ ~p.confirmed THEN Log(put, r, id, "Decide") ELSE put
    IN  IF Keeps("I-5") /\ HasSeen(peer, id) THEN Answer(c, Says("Gone"))
        ELSE Answer(logged, Told("Ok", OwnBundle(p)))

ApplyFacts(c, r, from, id, version, body) ==
    LET known == id \in DOMAIN c.l.peerings
        p == c.l.peerings[id]
        hasAuthority ==
            IF body.of = "Requester" THEN id[1] = from /\ body.facts.to = r
            ELSE id[1] = r /\ (known => PeerOf(p, id) = from)
        isFresh == IF p.seen = None THEN TRUE ELSE Before(p.seen, version)
        learnt == Learn(c.l, id, [p EXCEPT !.seen = version], body)
        (* What contradicts itself can still be ended. *)
        ends == IF body.of = "Requester" THEN body.facts.deleted ELSE IsDeadByA(body.facts)
        put == IF ends /\ ~IsDead(learnt) THEN PutPeering(HalfOff(c, id), r, id, Flagged(learnt))
               ELSE PutPeering(c, r, id, learnt)
    IN  IF ~hasAuthority /\ Keeps("I-30") THEN Answer(c, Says("Refused"))
        ELSE IF ~known
        THEN IF body.of = "Requester" THEN OnNew(c, r, from, id, version, body.facts)
             ELSE Answer(c, Says(IF HasClosed(c.l, id) THEN "Gone" ELSE "Unsynced"))
        ELSE IF (p.stuck /\ ~ends) \/ (~isFresh /\ Keeps("I-17")) THEN Answer(c, Told("Old", OwnBundle(p)))
        ELSE Answer(put, Told("Ok", OwnBundle(put.l.peerings[id])))

CloseBelow(c, from, id, below) ==
    LET peer == c.l.peers[from]
        before == Get(peer.seen, id[2], Unseen)
        after == Close(before, below)
    IN  IF id[1] # from \/ ~Keeps("I-5") \/ after = before THEN c
        ELSE SetPeer(c, from, [peer EXCEPT !.seen = Put(@, id[2], after)])

(* A peer asks for the promise to ignore its older lives. *)
OnPrepare(c, call) ==
    LET peer == c.l.peers[call.from]
        isOther == peer.floor # None /\ peer.floor.n = call.inc.n /\ peer.floor # call.inc
        isOld == peer.floor # None /\ call.inc.n < peer.floor.n
        isFrozen == peer.link.name # "Open"
        isNews == peer.floor # call.inc /\ Keeps("I-7")
        promised == IF isNews THEN SetPeer(c, call.from, [peer EXCEPT !.floor = call.inc]) ELSE c
        asked == IF isNews /\ isFrozen /\ Keeps("I-10") THEN Freeze(promised, call.from) ELSE promised
    IN  IF isOld \/ (isOther /\ Keeps("I-9")) THEN Answer(c, [type |-> "Stale", floor |-> peer.floor])
        ELSE IF isFrozen /\ ~Keeps("I-11") THEN Answer(c, Says("Frozen"))
        ELSE Answer(asked, [type |-> "Promise", nonce |-> call.errand.nonce, to |-> call.inc,
                            closed |-> [n \in {m \in DOMAIN c.l.born : ClosedBelow(c.l, call.from, m) > 0} |->
                                          ClosedBelow(c.l, call.from, n)]])

(* What the asker does not know. *)
Compare(l, r, call) ==
    LET theirs == call.errand.digests
        differing == {id \in With(l, call.from) :
                        ~l.peerings[id].stuck /\ DigestOf(l, id) \notin theirs}
        IsOver(id) == IF id[1] = r THEN HasClosed(l, id) ELSE HasSeen(l.peers[call.from], id)
        over == {id \in {digest.id : digest \in theirs} : id \notin DOMAIN l.peerings /\ IsOver(id)}
    IN  [type |-> "Synced", nonce |-> call.errand.nonce, to |-> call.inc,
         items |-> {DigestOf(l, id) : id \in differing}
                   \cup {[id |-> id, requested |-> None, decided |-> None] : id \in over}]

(* Why a life of a peer is not listened to, if it is not. *)
RefusesLife(peer, inc) ==
    /\ peer.floor # inc
    /\ \/ peer.floor = None
       \/ IF inc.n <= peer.floor.n THEN inc.n < peer.floor.n \/ Keeps("I-9") ELSE Keeps("I-7")

OnCall(c, r, call) ==
    LET peer == c.l.peers[call.from]
        errand == call.errand
        isStale == IF peer.floor = None THEN FALSE ELSE call.inc.n <= peer.floor.n
        closed == CloseBelow(c, call.from, errand.id, errand.closedBelow)
    IN  CASE errand.type = "Prepare" -> OnPrepare(c, call)
          [] errand.type # "Prepare" /\ RefusesLife(peer, call.inc) ->
                IF isStale THEN Answer(c, [type |-> "StaleIncarnation", floor |-> peer.floor])
                ELSE IF peer.floor # None /\ peer.link.name = "Open"
                THEN Answer(BeginLife(c, r, c.l.inc.n + 1), Says("Unsynced"))
                ELSE Answer(c, Says("Unsynced"))
          [] errand.type = "Sync" /\ ~RefusesLife(peer, call.inc) -> Answer(c, Compare(c.l, r, call))
          [] errand.type = "Apply" /\ ~RefusesLife(peer, call.inc) ->
                IF peer.link.name # "Open" /\ Keeps("I-6") THEN Answer(c, Says("Frozen"))
                ELSE ApplyFacts(closed, r, call.from, errand.id, <<call.inc.n, errand.op>>, errand.body)

-----------------------------------------------------------------------------
(* Answers that arrive *)

TellDeath(c, r, id) ==
    LET p == c.l.peerings[id]
        byOwn == IF p.side = "Requester" THEN p.requested.deleted ELSE IsDeadByA(p.decided)
        verb == IF p.side = "Accepter" /\ ~p.decided.deleted THEN "Decide" ELSE "Delete"
    IN  IF byOwn /\ ~p.confirmed THEN Log(c, r, id, verb) ELSE c

(* The other side has a record, and says its own facts; None: it has forgotten the peering. *)
FinishRecord(c, r, record, body) ==
    LET what == c.l.records[record]
        id == what.id
        done == DropRecords(c, {record})
        p == c.l.peerings[id]
        isGone == body = None
        learnt == IF isGone
                  THEN [(IF IsDead(p) THEN p ELSE Flagged(p)) EXCEPT !.confirmed = TRUE]
                  ELSE IF body.of # p.side /\ ~p.stuck THEN Learn(c.l, id, p, body) ELSE p
        off == IF isGone /\ ~IsDead(p) THEN HalfOff(done, id) ELSE done
        toldDeath == \/ what.verb = "Delete"
                     \/ what.verb = "Decide" /\ IsDeadByA(learnt.decided) /\ ~learnt.decided.deleted
        told == [learnt EXCEPT !.confirmed = @ \/ (toldDeath /\ IsDead(learnt))]
        put == PutPeering(off, r, id, told)
    IN  IF id \notin DOMAIN c.l.peerings THEN done
        ELSE IF RecordsOf(put.l, id) = {} THEN TellDeath(put, r, id) ELSE put

OnAcknowledged(c, r, record, reply) ==
    LET peer == c.l.peers[c.l.records[record].remote]
        status == reply.status
    IN  IF peer.floor # reply.inc /\ Keeps("I-18") THEN c
        ELSE CASE status.type \in {"Ok", "Old"} -> FinishRecord(c, r, record, status.body)
               [] status.type = "Gone" -> FinishRecord(c, r, record, None)
               [] status.type = "StaleIncarnation" -> Outlived(c, r, status.floor)
               [] OTHER -> c

OnPromise(c, r, region, reply) ==
    LET peer == c.l.peers[region]
        status == reply.status
        isVoid == peer.floor # None /\ reply.inc.n < peer.floor.n
        learns == Keeps("I-8") \/ peer.floor = None
        promised == [peer EXCEPT !.floor = IF learns THEN reply.inc ELSE @,
                                 !.link = Syncing(status.nonce, status.closed)]
    IN  IF peer.link.name # "Preparing" THEN c
        ELSE CASE status.type = "Promise" ->
                    IF status.nonce # peer.link.nonce \/ status.to # c.l.inc \/ (isVoid /\ Keeps("I-10"))
                    THEN c ELSE SetPeer(c, region, promised)
               [] status.type = "Stale" -> Outlived(c, r, status.floor)
               [] OTHER -> c

(* Takes back an operation that was lost altogether. *)
Adopt(c, r, region, item, side) ==
    LET id == item.id
        peer == c.l.peers[region]
        isMine == IF side = "Requester" THEN item.requested.seal = "Own"
                  ELSE IsBlank(item.decided) \/ item.decided.seal = "Own"
        isOver == IF side = "Requester" THEN HasClosed(c.l, id)
                  ELSE \/ IsBlank(item.decided) /\ ~item.requested.deleted
                       \/ Keeps("I-5") /\ HasSeen(peer, id)
        p == [NewPeering(side, item.requested) EXCEPT
                !.decided = item.decided,
                !.confirmed = IF side = "Requester" THEN IsDeadByA(item.decided) ELSE item.requested.deleted]
        mark == See(Get(peer.seen, id[2], Unseen), id[3])
        seen == IF side = "Accepter" /\ Keeps("I-5")
                THEN SetPeer(c, region, [peer EXCEPT !.seen = Put(@, id[2], mark)]) ELSE c
    IN  IF item.requested.to # (IF side = "Requester" THEN region ELSE r) \/ isOver \/ ~isMine THEN c
        ELSE PutPeering(seen, r, id, Reseal(p))

(* Takes over what the peer knows more: of its own facts all, of ours what our seal is under. *)
CatchUp(c, r, item, known) ==
    LET id == item.id
        isMine == IF known.side = "Requester" THEN item.requested.seal = "Own"
                  ELSE IsBlank(item.decided) \/ item.decided.seal = "Own"
        conflicts == known.side = "Accepter" /\ IsConflict(known.decided, item.decided)
        joined == IF ~isMine \/ conflicts THEN known
                  ELSE IF known.side = "Requester"
                  THEN [known EXCEPT !.requested.deleted = @ \/ item.requested.deleted]
                  ELSE [known EXCEPT !.decided.deadline = Known(@, item.decided.deadline),
                                     !.decided.decision = Known(@, item.decided.decision),
                                     !.decided.deleted = @ \/ item.decided.deleted]
        theirs == IF known.side = "Requester" THEN [of |-> "Accepter", facts |-> item.decided]
                  ELSE [of |-> "Requester", facts |-> item.requested]
        after == Learn(c.l, id, Reseal([joined EXCEPT !.stuck = @ \/ ~isMine \/ conflicts]), theirs)
    IN  IF after = known THEN c ELSE PutPeering(c, r, id, after)

MergeOne(c, r, region, item) ==
    LET id == item.id
        isKnown == id \in DOMAIN c.l.peerings
        known == c.l.peerings[id]
        side == IF id[1] = r THEN "Requester" ELSE "Accepter"
        ended == [(IF IsDead(known) THEN known ELSE Flagged(known)) EXCEPT !.confirmed = TRUE]
        off == IF IsDead(known) THEN c ELSE HalfOff(c, id)
    IN  IF id[1] \notin {r, region} THEN c
        ELSE IF isKnown /\ PeerOf(known, id) # region THEN c
        ELSE IF item.requested = None THEN IF isKnown THEN PutPeering(off, r, id, ended) ELSE c
        ELSE IF isKnown THEN CatchUp(c, r, item, known) ELSE Adopt(c, r, region, item, side)

RECURSIVE Merge(_, _, _, _)
Merge(c, r, region, items) ==
    IF items = {} THEN c
    ELSE LET item == CHOOSE one \in items : one.id = First({any.id : any \in items})
         IN  Merge(MergeOne(c, r, region, item), r, region, items \ {item})

HasBetter(l, id, p) ==
    \E other \in Rivals(l, id, p) \ {id} :
        LET rival == l.peerings[other]
        IN  IF IsUndecided(rival) = IsUndecided(p) THEN Before(other, id) ELSE IsUndecided(p)

VerbOf(p) ==
    IF OwnFlag(p) THEN "Delete"
    ELSE IF p.side = "Requester" /\ p.decided.deadline = None THEN "Create"
    ELSE IF p.side = "Accepter" /\ ~IsUndecided(p) THEN "Decide" ELSE "Modify"

ThawOne(c, r, id) ==
    LET p == c.l.peerings[id]
        ends == ~IsDead(p) /\ HasBetter(c.l, id, p)
        flagged == IF ends THEN Flagged(p) ELSE p
        decides == /\ flagged.side = "Accepter" /\ IsUndecided(flagged) /\ IsDead(flagged)
                   /\ ~flagged.stuck /\ Keeps("I-12")
        decided == IF ~decides THEN flagged
                   ELSE Decide(flagged, IF flagged.requested.deleted THEN "Cancelled" ELSE "Rejected")
        put == PutPeering(IF ends THEN HalfOff(c, id) ELSE c, r, id, decided)
    IN  IF (IsDead(decided) /\ decided.confirmed) \/ (decided.stuck /\ VerbOf(decided) # "Delete") THEN put
        ELSE Log(put, r, id, VerbOf(decided))

RECURSIVE ThawEach(_, _, _)
ThawEach(c, r, ids) ==
    IF ids = {} THEN c ELSE LET id == First(ids) IN ThawEach(ThawOne(c, r, id), r, ids \ {id})

(* All is merged: decide what has to be decided, and go on. *)
Thaw(c, r, region, closed) ==
    LET peer == c.l.peers[region]
        seen == [n \in DOMAIN closed \cup DOMAIN peer.seen |->
                    Close(Get(peer.seen, n, Unseen), Get(closed, n, 0))]
        open == SetPeer(c, region, [peer EXCEPT !.link = Open, !.seen = IF Keeps("I-5") THEN seen ELSE @])
        stale == {record \in DOMAIN c.l.records : c.l.records[record].remote = region}
        thawed == ThawEach(DropRecords(open, stale), r, With(c.l, region))
        allOpen == \A other \in DOMAIN c.l.peers : other = region \/ IsOpen(c.l, other)
        strays == {id \in thawed.l.on : id \notin DOMAIN thawed.l.peerings
                                        /\ (id[1] = region \/ (id[1] = r /\ allOpen))}
    IN  [thawed EXCEPT !.l.on = @ \ strays]

OnSynced(c, r, region, reply) ==
    LET peer == c.l.peers[region]
        status == reply.status
        isCurrent == peer.floor = reply.inc \/ ~Keeps("I-8") \/ ~Keeps("I-10")
    IN  CASE status.type = "Synced" ->
                IF status.to = c.l.inc /\ isCurrent /\ peer.link.name = "Syncing"
                THEN IF peer.link.nonce = status.nonce
                     THEN Thaw(Merge(c, r, region, status.items), r, region, peer.link.closed)
                     ELSE c
                ELSE c
          [] status.type = "StaleIncarnation" -> Outlived(c, r, status.floor)
          [] status.type = "Unsynced" -> IF peer.link.name = "Open" THEN c ELSE Freeze(c, region)
          [] OTHER -> c

(* An answer counts as long as the work is there, in the life that has asked. *)
OnReply(c, r, reply) ==
    LET work == reply.work
    IN  IF reply.epoch # c.l.inc.n \/ work \notin Work(c.l) THEN c
        ELSE CASE work[1] = "Prepare" -> OnPromise(c, r, work[2], reply)
               [] work[1] = "Sync" -> OnSynced(c, r, work[2], reply)
               [] work[1] = "Record" -> OnAcknowledged(c, r, RecordIn(work), reply)

OnSwitched(c, id) ==
    IF id \notin DOMAIN c.l.peerings THEN c
    ELSE LET p == c.l.peerings[id]
         IN  IF WantsHalf(p) /\ IsOpen(c.l, PeerOf(p, id)) THEN Switch(c, id, TRUE) ELSE c

-----------------------------------------------------------------------------
(* The clock *)

IsDue(p) == p.decided.deadline # None /\ IsUndecided(p) /\ ~IsDead(p)
NeedsClock(l) ==
    \E id \in DOMAIN l.peerings :
        LET p == l.peerings[id]
        IN  p.deadSince # None \/ (IsDue(p) /\ (p.side = "Accepter" \/ ~Keeps("I-1")))

RECURSIVE ExpireEach(_, _, _)
ExpireEach(c, r, ids) ==
    IF ids = {} THEN c
    ELSE LET id == First(ids)
             p == c.l.peerings[id]
             byR == [p EXCEPT !.decided.decision = "Expired", !.decided.seal = "Stale"]
         IN  ExpireEach(IF p.side = "Accepter"
                        THEN Log(PutPeering(c, r, id, Decide(p, "Expired")), r, id, "Decide")
                        ELSE PutPeering(c, r, id, byR), r, ids \ {id})

Forget(c) ==
    LET l == c.l
        IsOver(id) == LET p == l.peerings[id] IN
            /\ p.deadSince # None
            /\ IsOpen(l, PeerOf(p, id))
            /\ p.deadSince <= l.clock - Remember
            /\ id \notin l.on
            /\ ~Keeps("I-4") \/ (p.confirmed /\ RecordsOf(l, id) = {})
        over == {id \in DOMAIN l.peerings : IF l.peerings[id].deadSince = None THEN FALSE ELSE IsOver(id)}
        stray == {record \in DOMAIN l.records : l.records[record].id \in over}
    IN  DropRecords([c EXCEPT !.l.peerings = Drop(@, over)], stray)

OnTick(c, r) ==
    LET ticked == [c EXCEPT !.l.clock = @ + 1]
        l == ticked.l
        Expires(id) == LET p == l.peerings[id] IN
            /\ IsOpen(l, PeerOf(p, id)) /\ (p.side = "Accepter" \/ ~Keeps("I-1"))
            /\ IF IsDue(p) THEN p.decided.deadline <= l.clock ELSE FALSE
    IN  Forget(ExpireEach(ticked, r, {id \in DOMAIN l.peerings : Expires(id)}))

-----------------------------------------------------------------------------
(* The customer API: None if a call is refused *)

Create(c, r, to) ==
    LET l == c.l
        seq == Get(l.born, l.inc.n, 0)
        id == <<r, l.inc.n, seq>>
        p == NewPeering("Requester", [to |-> to, deleted |-> FALSE, seal |-> "Own"])
        isBusy == \E other \in DOMAIN l.peerings :
            LET one == l.peerings[other] IN
            PairOf(one, other) = {r, to} /\ ~(IsDead(one) /\ one.confirmed /\ Keeps("I-14"))
    IN  IF ~IsOpen(l, to) \/ isBusy THEN None
        ELSE Log(PutPeering([c EXCEPT !.l.born = Put(@, l.inc.n, seq + 1)], r, id, p), r, id, "Create")

Change(c, r, id, verb) ==
    IF id \notin DOMAIN c.l.peerings THEN None
    ELSE LET p == c.l.peerings[id]
             label == LabelIn(c.l, id)
             isOpen == IsOpen(c.l, PeerOf(p, id))
             isLate == IF p.decided.deadline = None THEN TRUE ELSE c.l.clock >= p.decided.deadline
             frozenDelete == verb = "Delete" /\ ~isOpen /\ ~IsDead(p)
             isPending == p.side = "Accepter" /\ label = "PendingAcceptance"
             raises == frozenDelete \/ (verb = "Delete" /\ Rank(label) < 4 /\ ~isPending)
             nothing == verb = "Delete" /\ Rank(label) >= 4 /\ ~frozenDelete
             decides == /\ verb \in {"Accepted", "Rejected"}
                        /\ p.side = "Accepter" /\ label = "PendingAcceptance" /\ isOpen
                        /\ ~isLate \/ ~Keeps("I-38")
             put == PutPeering(HalfOff(c, id), r, id, Flagged(p))
         IN  IF nothing THEN IF Keeps("I-34") THEN c ELSE None
             ELSE IF p.stuck THEN None
             ELSE IF decides THEN Log(PutPeering(c, r, id, Decide(p, verb)), r, id, "Decide")
             ELSE IF raises THEN IF isOpen THEN Log(put, r, id, "Delete") ELSE put
             ELSE None
=============================================================================
