------------------------------- MODULE IrcLive -------------------------------
(* Both sides come to agree, whatever customers ask and whichever control plane crashes or is restored: what
   is under way arrives sooner or later, and who is down comes back. Customers, clocks, crashes and
   restores owe nobody anything. A state that nothing can change any more is an end; there is no way
   round in a circle, because facts only grow. *)
EXTENDS Irc

Progress == (\E m \in network : Deliver(m)) \/ (\E r \in Regions : Recover(r))

Outside ==
    \/ \E r \in Regions : Crash(r) \/ BackUp(r) \/ Restore(r) \/ (ledger[r].clock < MaxClock /\ Fire(r))
    \/ \E wish \in Wishes : Say(wish)

LiveSpec == Init /\ [][Progress \/ Outside]_vars /\ WF_vars(Progress)
UnfairSpec == Init /\ [][Progress \/ Outside]_vars

(* E2, E3. *)
eventually_agreed == <>[]Agreed

(* E6. *)
AllOpen == \A r \in Regions : \A other \in DOMAIN ledger[r].peers : IsOpen(ledger[r], other)
eventually_thawed == <>[]AllOpen
=============================================================================
