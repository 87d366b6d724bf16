------------------------------ MODULE LeaseLive ------------------------------
(* Somebody is elected, whatever the hosts do that may crash: the run of the protocol up to the first holder,
   on a network that delivers in time. What comes after the first holder is cut off, so that the state
   space is finite without any bound on requests. *)
EXTENDS Lease

Elected == \E h \in Hosts : IsHolding(h)

(* A crash may happen; the rest does, sooner or later, as long as any of it can. *)
Progress == (\E m \in network : Deliver(m)) \/ (\E h \in Hosts, t \in Timers : Fire(h, t)) \/ Elapse

UntilElected == ~Elected /\ Next

LiveSpec == Init /\ [][UntilElected]_vars /\ WF_vars(~Elected /\ Progress)
UnfairSpec == Init /\ [][UntilElected]_vars

eventually_elected == <>Elected
=============================================================================
