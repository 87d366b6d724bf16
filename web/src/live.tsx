// A run that is followed: its steps appear as the nodes write them.
import { useEffect, useRef, useState } from 'preact/hooks'
import { listen } from './api'
import type { Route } from './route'
import { StoryView, type Where } from './view'
import type { Lane, Moment, Step, Story } from './types'

interface Props { route: Route; go: (route: Partial<Route>) => void; onProblem: (error: Error | null) => void }

export function Live({ route, go, onProblem }: Props) {
  const [story, setStory] = useState<Story | null>(null)
  const [notes, setNotes] = useState<string[]>([])
  const [over, setOver] = useState(false)
  const held = useRef(route.row)
  held.current = route.row
  useEffect(() => {
    const control = new AbortController()
    const on: Record<string, (data: unknown) => void> = {
      // It is told again from the beginning when another trace has come.
      story: data => { setStory(data as Story); setOver(false); onProblem(null) },
      steps: data => setStory(old => old && { ...old, steps: [...old.steps, ...(data as Step[])] }),
      // Of a long run the oldest steps go. Who has stepped back stays at the step that is shown.
      gone: data => {
        const { count, first } = data as { count: number; first: Moment }
        setStory(old => old && { ...old, first, steps: old.steps.slice(count) })
        if (held.current !== null) go({ row: Math.max(0, held.current - count) })
      },
      lanes: data => setStory(old => old && { ...old, lanes: data as Lane[] }),
      notes: data => setNotes(data as string[]),
      end: () => setOver(true),
    }
    listen('live', {}, (name, data) => on[name]?.(data), control.signal).catch((error: Error) => {
      if (error.name === 'AbortError') return
      onProblem(error)
      setOver(true)
    })
    return () => control.abort()
  }, [])
  if (!story) {
    return (
      <div class="page">
        <h1>A run that is followed</h1>
        <p class="lead" role="status">{over ? 'Nothing was followed.' : 'Waiting for the traces of the nodes.'}</p>
        {notes.map(note => <p class="note" key={note}>{note}</p>)}
      </div>
    )
  }
  const last = story.steps.length
  // With no row in the address, the end is shown, whatever comes. Stepping back stays where one is.
  const follows = route.row === null || route.row >= last
  const row = Math.min(route.row ?? last, last)
  const onWhere = (where: Partial<Where>) => go(where.row !== undefined && where.row >= last && !over ? { ...where, row: null } : where)
  return (
    <div class="page" onWheel={event => { if (follows && !over && event.deltaY < 0 && (event.target as HTMLElement).closest('.diagram')) go({ row: last - 1 }) }}>
      <div class="heading">
        <h1>{story.title}</h1>
        {over
          ? <span class="pill" role="status">the run has ended</span>
          : <span class={`live ${follows ? '' : 'held'}`} role="status"><i aria-hidden="true" /> live{follows ? '' : `, ${last - row} more ${last - row === 1 ? 'step' : 'steps'}`}</span>}
        {!over && !follows && <button type="button" class="button" onClick={() => go({ row: null })}>To the end</button>}
      </div>
      <StoryView story={{ ...story, notes }} where={{ row, actors: route.actors, query: route.query }} onWhere={onWhere} onProblem={onProblem} />
    </div>
  )
}
