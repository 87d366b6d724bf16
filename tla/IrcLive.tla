------------------------------- MODULE IrcLive -------------------------------
(* Both sides come to agree, whatever customers ask and whichever region is restored, if what is under way arrives.
   Facts only grow, so that a run cannot go on delivering news for ever: that everything arrives sooner
   or later means that from some moment on nothing under way is news. The assumption is written in that
   form, because TLC cannot evaluate in time whether a step as large as these is enabled. *)
EXTENDS Irc

AllArrived ==
    /\ \A r \in Regions : up[r]
    /\ \A m \in network :
        /\ m.src # m.dst
        /\ LET c == Handle(m) IN c.l = ledger[m.dst] /\ Flights(m.dst, c.out) \subseteq network

(* E2, E3. *)
eventually_agreed == <>[]AllArrived => <>[]Agreed
agreed_without_fairness == <>[]Agreed

(* E6, of one region. *)
AllOpen == \A r \in Regions : \A other \in DOMAIN ledger[r].peers : IsOpen(ledger[r], other)
eventually_thawed == <>[]AllArrived => <>[]AllOpen
thawed_without_fairness == <>[]AllOpen
=============================================================================
