----------------------------- MODULE LeaseTrace -----------------------------
(* Recorded runs of the lease, taken again step by step: a run is accepted if the specification has a behaviour
   that takes its events in their order, and leaves each node's actor in the state that the run has left it
   in. What a run does not hold, the timers and what is under way, is what the specification makes of it.

   tests/twin writes the module Recorded, which extends Lease and defines Runs: a sequence of runs, each a
   sequence of events. *)
EXTENDS Recorded, Sequences, TLC

VARIABLES
    run,    \* which of the runs
    taken   \* how many of its events have been taken

traceVars == <<vars, run, taken>>

NodeOf(event) == IF event.type = "Deliver" THEN event.dst ELSE event.node

(* "Begun" is the first start of a node, which Init has taken, and what changes nothing: a command to a host that
   does not hold. *)
Follow(event) ==
    CASE event.type = "Begun" -> UNCHANGED vars
      [] event.type = "Deliver" ->
            \E m \in network : m.src = event.src /\ m.dst = event.dst /\ m.msg = event.msg /\ Deliver(m)
      [] event.type = "Fire" -> Fire(event.node, event.timer)
      [] event.type = "Crash" -> Crash(event.node)
      [] event.type = "Recover" -> Recover(event.node)
      [] event.type = "StepDown" -> StepDown(event.node)
      [] event.type = "HandOver" -> HandOver(event.node, event.target)

IsAsRecorded(event) ==
    IF event.type = "Crash" THEN TRUE
    ELSE IF NodeOf(event) = Store THEN record' = event.state
    ELSE elector'[NodeOf(event)] = event.state

TraceInit == Init /\ run \in 1..Len(Runs) /\ taken = 0

TraceNext ==
    /\ taken < Len(Runs[run])
    /\ LET event == Runs[run][taken + 1] IN Follow(event) /\ IsAsRecorded(event)
    /\ taken' = taken + 1
    /\ UNCHANGED run

TraceSpec == TraceInit /\ [][TraceNext]_traceVars

(* Violated if the run is accepted to its end. *)
NotDone == taken < Len(Runs[run])

(* Never violated: tells which of many runs are accepted. *)
Told == NotDone \/ PrintT(<<"accepted", run>>)
=============================================================================
